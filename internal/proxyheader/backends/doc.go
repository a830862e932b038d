// Package backends has tests alone: servers that people run, nginx, HAProxy and Postfix, are told by the proxy who their
// clients are, and log them. HAProxy is in front of the proxy, too.
//
// They need root, for network namespaces, and Debian's packages, so they are built with a tag of their own. "make
// test-headers" runs them.
package backends
