// Package fallback relays TCP wherever Go runs: a goroutine per direction and io.Copy. It keeps the promises of
// package splice where that cannot be used: half-close both ways, a reset on one leg reaches the other after
// what was delivered before it, a backend that refuses resets the client, and no accept error ends a port.
//
// On Linux io.Copy between two connections would itself use splice(2). This package is for the places where that
// is not to be had, so it hides the connections' ReadFrom and WriteTo and really copies.
//
// When descriptors run out, one client at the most is accepted without a socket for its backend; the others wait in the
// kernel's queue. What has waited for as long as a dial may take is reset.
//
// Clients whose PROXY header is awaited (Options.AcceptProxyProtocol) have none yet, and keep no other waiting.
//
// Where it does less: a client that resets while its backend is being dialed is noticed when the dial ends. What a backend
// says is lost, and it counts as refused, if it resets before the dial has ended (package net takes the error). Elsewhere
// than on Linux a reset is also missed while nothing is read from the leg or written to it.
//
// A process that ends, in whatever way, resets the connections whose bytes are under way, and those that were not served
// yet. Others end in order. (Elsewhere than on Linux, where the system does not tell whether bytes are under way, all are
// reset.)
//
// What a connection costs while it exists: two descriptors, two goroutines and 64 KiB of buffers.
//
// A whole program:
//
//	listener, err := net.ListenTCP("tcp", &net.TCPAddr{Port: 8080})
//	if err != nil {
//		return err
//	}
//	engine := fallback.New(fallback.Options{})
//	defer engine.Close()
//	engine.Add(listener, netip.MustParseAddrPort("172.17.0.2:80"))
package fallback
