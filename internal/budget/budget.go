// Package budget shares the descriptors of a process between its ports, so that one that is flooded leaves some to the others.
//
// The rule: a port may take one more while it has at most seven times as many as are free. A port that is alone can have
// seven eighths of all, each of two that are flooded seven fifteenths, and whoever needs some finds that eighth or
// fifteenth. Nothing is set aside for ports that need none, and nobody counts ports. (Queues share a switch's memory by
// such thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998.)
package budget

import "sync/atomic"

// factor is how many times as many as are free a port may have.
const factor = 7

// Descriptors is what all ports may have open together.
type Descriptors struct {
	limit int64
	open  atomic.Int64
}

// New makes a budget of that many.
func New(limit int) *Descriptors { return &Descriptors{limit: int64(limit)} }

// Share is what one port has. Its methods may be called from any goroutine. The zero Share is of no budget, and never full.
type Share struct {
	budget *Descriptors
	held   atomic.Int64
}

// Of makes it a share of a budget, which may be nil. It is called before the others.
func (s *Share) Of(b *Descriptors) { s.budget = b }

// Add counts descriptors that were opened, or closed if n is negative.
func (s *Share) Add(n int) {
	if s.budget != nil {
		s.held.Add(int64(n))
		s.budget.open.Add(int64(n))
	}
}

// Full says whether the port may have no more for now.
func (s *Share) Full() bool {
	return s.budget != nil && s.held.Load() > factor*max(0, s.budget.limit-s.budget.open.Load())
}
