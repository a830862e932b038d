// Package fallback relays TCP wherever Go runs: a goroutine per direction and io.Copy. It keeps the promises of
// package splice where that cannot be used: half-close both ways, a reset on one leg reaches the other after
// what was delivered before it, a backend that refuses resets the client, and no accept error ends a port.
//
// On Linux io.Copy between two connections would itself use splice(2). This package is for the places where that
// is not to be had, so it hides the connections' ReadFrom and WriteTo and really copies.
//
// What a connection costs while it exists: two descriptors, two goroutines and 64 KiB of buffers.
//
// A whole program:
//
//	listener, err := net.Listen("tcp", "127.0.0.1:8080")
//	if err != nil {
//		return err
//	}
//	engine := fallback.New(fallback.Options{})
//	defer engine.Close()
//	engine.Add(listener, netip.MustParseAddrPort("172.17.0.2:80"))
package fallback
