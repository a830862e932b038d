// Package e2e holds the end-to-end tests: a real dockerd that starts the program under test for every published
// port, a container behind it, and clients that use the port. They need root and the Debian packages that the Makefile
// lists as E2E_PACKAGES, so they are built with a tag of their own:
//
//	go test -tags e2e -count=1 ./internal/e2e -args -proxy "$PWD/bin/portsplice"
//
// Variables that begin with PORTSPLICE_ reach the proxies through dockerd's environment, so that the same tests
// show any engine or option; -proxy /usr/sbin/docker-proxy shows the reference. -dockerd takes a newer dockerd than
// Debian's, from a directory with its docker-proxy, a runc that it can use and, for rootless, its dockerd-rootless.sh and
// RootlessKit. (The test of the .deb takes Debian's.)
//
// # Where the tests run
//
// The test binary starts itself twice. The first copy is process 1 of new network, mount and process namespaces:
// it brings loopback up, mounts its own /proc and a memory file system on /run, starts the second copy, which runs
// the tests, and reaps whatever loses its parent. Three things follow:
//
//   - No uplink: the tests may publish fixed ports and name their bridge as they like.
//   - Every process that a test sees belongs to the tests, so a leftover is any process at all. When the tests end
//     in whatever way, a panic or Ctrl-C included, the kernel ends process 1 and with it every daemon, shim,
//     container and proxy, then frees the bridges, the mounts and the files.
//   - Only the containers' control groups outlive this. The process that stayed outside removes them; killed
//     itself, it leaves them, empty, under /sys/fs/cgroup.
//
// Each test has a dockerd of its own (half a second to start), with --iptables=false: without NAT rules every
// connection to a published port goes through the proxy.
package e2e
