package splice

import "iter"

// pairList is a doubly linked list through the pairs themselves; a pair is in one list at most. Its zero value
// is empty.
type pairList struct{ first, last *pair }

func (l *pairList) empty() bool { return l.first == nil }

// add appends p, which is in no list.
func (l *pairList) add(p *pair) {
	p.list, p.previous = l, l.last
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
}

// leave takes p out of the list that it is in, if any.
func (p *pair) leave() {
	l := p.list
	if l == nil {
		return
	}
	if p.previous == nil {
		l.first = p.next
	} else {
		p.previous.next = p.next
	}
	if p.next == nil {
		l.last = p.previous
	} else {
		p.next.previous = p.previous
	}
	p.list, p.previous, p.next = nil, nil, nil
}

// all yields the pairs; the one that was yielded may leave the list.
func (l *pairList) all() iter.Seq[*pair] {
	return func(yield func(*pair) bool) {
		for p := l.first; p != nil; {
			next := p.next
			if !yield(p) {
				return
			}
			p = next
		}
	}
}
