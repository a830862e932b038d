// Package status answers dockerd, which waits at the other end of a pipe to hear whether the port is served.
//
// dockerd hands the write end over as descriptor 3, reads two bytes, "0\n" or "1\n", and after "1\n" the reason
// up to end of file, which it shows its user. It gives up after 16 s.
package status

import "fmt"

// Pipe is dockerd's status pipe. A nil Pipe is what a person's shell gives: nobody waits, and reporting does
// nothing.
type Pipe struct{ fd int }

// Ready reports that the port is served, and closes the pipe.
func (p *Pipe) Ready() error { return p.report("0\n") }

// Failed reports why the port is not served, and closes the pipe.
func (p *Pipe) Failed(reason error) error { return p.report(fmt.Sprintf("1\n%v\n", reason)) }
