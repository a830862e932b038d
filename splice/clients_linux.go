package splice

import "slices"

// lookAt is how many pairs are looked at before a loop goes on with its traffic: 25 us, of 51,200 that are not all in the
// CPU's caches.
const lookAt = 512

// Clients gives the connections that have moved the most bytes, most of them at the most, the busiest first. The
// loops are asked between their turns, and answer for a bounded number of connections at a time; what comes or goes
// meanwhile may be told of or not. It must not be called from Options.Report.
func (p *Port) Clients(most int) []Client {
	p.listing.Lock()
	defer p.listing.Unlock()
	p.mu.Lock()
	shares := slices.Clone(p.shares)
	p.mu.Unlock()
	b := busiest{most: max(most, 0)}
	for _, s := range shares {
		more := s.loop.Do(func() { s.next = s.first })
		for more && s.loop.Do(func() { more = s.look(&b) }) {
		}
	}
	return b.all
}

// look tells of the next pairs, and reports whether there are more.
func (s *share) look(b *busiest) (more bool) {
	now := s.loop.Now()
	for range lookAt {
		p := s.next
		if p == nil {
			return false
		}
		b.add(Client{p.client, now - p.began, p.pumps[front].total, p.pumps[back].total})
		s.next = p.next
	}
	return s.next != nil
}
