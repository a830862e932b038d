package splice_test

import (
	"fmt"
	"log"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/splice"
)

func Example() {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		log.Fatal(err)
	}
	engine, err := splice.New(splice.Options{})
	if err != nil {
		log.Fatal(err) // errors.Is(err, errors.ErrUnsupported): use package fallback
	}
	if _, err := engine.Add(listener, netip.MustParseAddrPort("172.17.0.2:80")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(engine.Stats())
	if err := engine.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// loops=1 accepted=0 active=0 accept-errors=0 dial-errors=0 dial-refused=0 dial-timeouts=0 dial-unreachable=0 dial-exhausted=0 aborted=0 bytes-in=0 bytes-out=0 spliced=0 copied=0 pipes=0 pipes-refused=0 source-ports=0 headers-refused=0 source-refused=0
}
