package fallback_test

import (
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/portsplice/portsplice/fallback"
)

func Example() {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	engine := fallback.New(fallback.Options{})
	if _, err := engine.Add(listener, netip.MustParseAddrPort("172.17.0.2:80")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(engine.Stats())
	if err := engine.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// accepted=0 active=0 accept-errors=0 dial-errors=0 dial-refused=0 dial-timeouts=0 dial-unreachable=0 dial-exhausted=0 aborted=0 bytes-in=0 bytes-out=0 spliced=0 copied=0 headers-refused=0
}
