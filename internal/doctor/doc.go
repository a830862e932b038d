// Package doctor looks at a host as an operator would who wonders why portsplice does not do what it should: which proxy
// dockerd starts, what serves each port, what the kernel has, and which limits are near. Each finding says what to do.
//
// Looking (Examine) and judging (Judge) are apart: what is judged is plain facts. Nothing is changed; whether local
// clients can be bypassed is tried, for a moment and for no port.
package doctor
