package splice

// pairState is where a pair is in its life.
type pairState uint8

const (
	expecting pairState = iota // the client is to begin with a PROXY header; no backend is dialed
	dialing                    // the backend is being connected; the client is not read
	relaying                   // both pumps run
	parting                    // a leg was reset after its end had come: what it sent is complete, and is passed on
	aborting                   // a leg has failed: what it delivered before is passed on, for flushTimeout at the most
	flushing                   // nothing is left to pass on; the survivor's peer has not acknowledged all of it yet
	lost                       // both legs have failed
	closed
	pairStates // their number
)

// pairEvent is what takes a pair from one state to another.
type pairEvent uint8

const (
	clientKnown pairEvent = iota
	backendConnected
	legReset // after its end had come
	legFailed
	delivered // both pumps are over
	gone
	pairEvents // their number
)

// after is the table in the package documentation, and goes by the order of the states. What is not in it changes nothing.
func (s pairState) after(e pairEvent) pairState {
	switch {
	case e == gone:
		return closed
	case s == expecting && e == clientKnown:
		return dialing
	case s == dialing && e == backendConnected:
		return relaying
	case s == relaying && e == legReset:
		return parting
	case s == relaying && e == legFailed:
		return aborting
	case s < parting || s > flushing:
		return s
	case e == legFailed:
		return lost
	case e == delivered:
		return flushing
	}
	return s
}

// on takes the pair to the state after an event, and does what goes with entering it.
func (p *pair) on(e pairEvent) {
	before := p.state
	if p.state = before.after(e); p.state == before {
		return
	}
	switch p.state {
	case relaying:
		p.connected()
	case aborting:
		p.deadline = p.share.loop.Now() + flushTimeout
		p.share.loop.SetTimer(&p.timer, p, p.deadline)
	case flushing:
		p.flush()
	case closed:
		p.release()
	}
}

// pumpState is what a pump waits for.
type pumpState uint8

const (
	empty      pumpState = iota // it holds nothing: an event of the source has it read
	queued                      // it holds nothing and is in a queue of the loop, because the source has more
	holding                     // it holds bytes: an event of the destination has it write
	over                        // it moves nothing any more
	pumpStates                  // their number
)

// verdict is how a step of a pump ended, or what befell it from outside. From finished on it is over.
type verdict uint8

const (
	more              verdict = iota // the source may have more; nothing is held
	drained                          // a short read: the source has nothing more, if it has not said otherwise
	awaitSource                      // the source has nothing
	awaitDestination                 // the pump holds bytes that the destination does not take
	departed                         // the pair goes to another loop, whose epoll looks anew
	finished                         // end of file was passed on
	sourceFailed                     // what the source delivered before has left
	destinationFailed                // what the pump held is lost
	abandoned                        // the pair has no use for it any more
	verdicts                         // their number
)

// after is the table in the package documentation. What is not in it changes nothing.
func (s pumpState) after(v verdict) pumpState {
	switch {
	case s == over || v >= finished:
		return over
	case v == awaitDestination:
		return holding
	case s == empty && v == more:
		return queued
	case s == holding && v == more, s == queued && (v == awaitSource || v == departed):
		return empty
	}
	return s
}

// on takes the pump to the state after a verdict. What it holds when it is over is given back.
func (p *pump) on(l *loop, v verdict) {
	if p.state = p.state.after(v); p.state == over {
		p.release(l)
	}
}
