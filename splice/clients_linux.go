package splice

import (
	"slices"

	"github.com/portsplice/portsplice/internal/connection"
)

// Clients gives the connections that have moved the most bytes, most of them at the most, the busiest first. The
// loops are asked between their turns, and answer for a bounded number of connections at a time; what comes or goes
// meanwhile may be told of or not. It must not be called from Options.Report.
func (p *Port) Clients(most int) []Client {
	p.listing.Lock()
	defer p.listing.Unlock()
	p.mu.Lock()
	shares := slices.Clone(p.shares)
	p.mu.Unlock()
	b := connection.Busiest{Most: most}
	for _, s := range shares {
		more := s.loop.Do(func() { s.next = s.first })
		for more && s.loop.Do(func() { more = s.look(&b) }) {
		}
	}
	return b.All
}

// look tells of the next pairs, and reports whether there are more.
func (s *share) look(b *connection.Busiest) (more bool) {
	now := s.loop.Now()
	for range connection.LookAt {
		p := s.next
		if p == nil {
			return false
		}
		b.Add(Client{Address: p.client, Age: now - p.began, BytesIn: p.pumps[front].total, BytesOut: p.pumps[back].total})
		s.next = p.next
	}
	return s.next != nil
}
