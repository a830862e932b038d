package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

const gibibyte = 1 << 30

func main() {
	program := flag.String("proxy", "bin/portsplice", "the proxy to show")
	flag.Parse()
	if err := show(*program); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func show(program string) (err error) {
	content := newContent()
	backend, err := serve(content)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	p, err := start(program, backend.addr)
	if err != nil {
		return err
	}
	defer p.kill()
	fmt.Printf("backend   an HTTP server on %v\n", backend.addr)
	fmt.Printf("proxy     %s, process %d, in front of it on %v\n", program, p.Process.Pid, p.frontend)

	if err := fetchPage(p.frontend); err != nil {
		return err
	}
	begin := time.Now()
	if err := content.fetch("http://" + p.frontend.String() + "/gibibyte"); err != nil {
		return err
	}
	took := time.Since(begin)
	counters, err := p.counters()
	if err != nil {
		return err
	}
	cpu, err := p.stop()
	if err != nil {
		return err
	}
	fmt.Printf("download  1 GiB, every byte compared, in %.2f s: %.1f Gbit/s\n",
		took.Seconds(), 8*gibibyte/took.Seconds()/1e9)
	fmt.Printf("cpu       the proxy used %v in all\n", cpu.Round(time.Millisecond))
	fmt.Printf("counters  %s\n", counters)
	return nil
}

func fetchPage(frontend netip.AddrPort) error {
	response, err := http.Get("http://" + frontend.String() + "/")
	if err != nil {
		return err
	}
	page, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	fmt.Printf("page      %s: %q\n", response.Status, page)
	return nil
}

// backend is an HTTP server on the loopback interface.
type backend struct {
	http.Server
	addr netip.AddrPort
}

func serve(c content) (*backend, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "hello from the backend") // the client notices
	})
	mux.Handle("/gibibyte", c)
	b := &backend{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	b.Handler = mux
	go func() { _ = b.Serve(l) }() // ends with ErrServerClosed
	return b, nil
}
