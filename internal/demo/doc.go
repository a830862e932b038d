// Command demo shows what portsplice does, without docker: an HTTP backend, the proxy in front of it, started as
// dockerd starts it, and a page and 1 GiB that are fetched through it.
package main
