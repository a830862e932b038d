package udp

// depths are how many datagrams a socket is asked for at once. Asking for more than there are costs a failed attempt
// each time, inside of the system call, so most sockets of most loads are asked for one.
var depths = [...]int{1, 8, batch}

const (
	// patient is how often in a row a socket must have had fewer than it was asked for before it is asked for fewer,
	// and impatient is the same where it never had more than one since it was asked for more.
	patient   = 16
	impatient = 2

	// mostHints bounds how many hints it takes to ask for more: then one receive in 64 is such a trial.
	mostHints = 128
)

// depth adapts to how many datagrams a socket has at once. The zero value is ready to use.
//
// What was asked for one and has another in the very next turn may have had several. Or it had one each time: the
// backend of 64 busy clients answers in the same turn what it was sent. So that is a hint, which is tried, and each
// trial that was in vain doubles the number of hints in a row that the next one takes.
type depth struct {
	level uint8
	few   uint8  // how often in a row there were few
	hints uint8  // in a row
	vain  uint8  // trials in a row, as the power of two that they have made of the hints
	found bool   // there was more than one, since it is asked for more
	asked uint32 // the turn in which the socket was asked last
}

// ask returns how many datagrams to ask for.
func (d *depth) ask(turn uint32) int {
	if d.level == 0 {
		if d.asked+1 != turn {
			d.hints = 0
		} else if d.hints++; d.hints >= 1<<d.vain {
			d.level, d.few, d.hints, d.found = 1, 0, 0, false
		}
	}
	d.asked = turn
	return depths[d.level]
}

// got learns from how many there were.
func (d *depth) got(n int) {
	if d.level == 0 {
		return
	}
	if n > depths[d.level-1] {
		d.few, d.found, d.vain = 0, true, 0
		if n == depths[d.level] && int(d.level) < len(depths)-1 {
			d.level++
		}
		return
	}
	d.few++
	switch {
	case d.few > patient:
		d.few = 0
		d.level--
	case d.level == 1 && !d.found && d.few == impatient:
		d.level = 0
		if 1<<d.vain < mostHints {
			d.vain++
		}
	}
}
