// Package tree knows a process together with all that it started: some proxies are one process, some have workers, and
// some fork for every connection.
package tree
