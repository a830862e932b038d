//go:build !linux

package journal

import (
	"errors"
	"os"
)

// Log writes lines to standard error.
type Log struct {
	// Port is for the journal of other systems.
	Port string
}

// New makes a Log.
func New() *Log { return &Log{} }

// Write writes a failure, which is a line.
func (l *Log) Write(line []byte) (int, error) { return os.Stderr.Write(line) }

// Print writes a line.
func (l *Log) Print(_ Priority, line string) { _, _ = os.Stderr.WriteString(line) }

// PrintLast writes the line of a process that is about to end.
func (l *Log) PrintLast(line string) { l.Print(Error, line) }

// Stream finds no journal: that is of Linux.
func Stream(Priority) (*os.File, error) { return nil, errors.ErrUnsupported }
