package udp

// depths are how many datagrams a socket is asked for at once. Asking for more than there are costs a failed attempt
// each time, inside of the system call, so most sockets of most loads are asked for one.
var depths = [...]int{1, 8, batch}

// patient is how often a socket must have fewer than it was asked for before it is asked for fewer.
const patient = 16

// depth adapts to how many datagrams a socket has at once. The zero value is ready to use.
type depth struct {
	level uint8
	few   uint8  // how often in a row there were few
	asked uint32 // the turn in which the socket was asked last
}

// ask returns how many datagrams to ask for. A socket that was asked for one, and has another in the very next turn,
// had more than one: an answer to what the turn before sent cannot be here yet.
func (d *depth) ask(turn uint32) int {
	if d.level == 0 && d.asked+1 == turn {
		d.level = 1
	}
	d.asked = turn
	return depths[d.level]
}

// got learns from how many there were.
func (d *depth) got(n int) {
	switch top := len(depths) - 1; {
	case d.level == 0:
	case n > depths[d.level-1]:
		d.few = 0
		if n == depths[d.level] && int(d.level) < top {
			d.level++
		}
	case d.few == patient:
		d.few = 0
		d.level--
	default:
		d.few++
	}
}
