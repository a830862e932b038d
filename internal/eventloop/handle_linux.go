package eventloop

import "slices"

// Handler takes the events of a descriptor, on the loop that the descriptor is registered with.
type Handler interface{ Ready(events uint32) }

// Handle is a descriptor's registration with a loop. The zero Handle is none.
type Handle struct{ index, generation uint32 }

// Registered says whether the handle is one.
func (h Handle) Registered() bool { return h.generation != 0 }

// sharedIndex marks the index of a slot in the table that other goroutines may register with.
const sharedIndex = 1 << 31

func (h Handle) shared() bool { return h.index&sharedIndex != 0 }

// unshared is the handle as the table of shared ones knows it.
func (h Handle) unshared() Handle { return Handle{h.index &^ sharedIndex, h.generation} }

// slot leads from a handle to its handler.
type slot struct {
	handler    Handler // nil while the slot is free
	generation uint32  // of the handle that is good now
	work       uint32  // events and slices since they were last counted; streamed if there were a stream's
	whole      Handle  // whose work its events are; the zero Handle: its own
}

// streamed marks work of which some was a stream's (Loop.Stream).
const streamed = 1 << 31

// units is how much work it was.
func (s *slot) units() uint32 { return s.work &^ streamed }

// table is a loop's slots. They are made in blocks, so that nothing is copied as they become more, and free ones are used
// first. Its zero value is empty.
type table struct {
	blocks []*[slotBlock]slot
	free   []uint32
	end    uint32 // the index after the last slot that was ever used
	used   int
	few    int    // when no more than these are used the memory of others is given back
	first  uint32 // the generation that slots begin with
}

const (
	slotBlock = 256

	// A table that has room for more than smallTable handles gives memory back when an eighth of its handles is left,
	// and each time that half of these have gone: so a handle that goes costs no more for it. 18,000 slots are 0.7 MB.
	smallTable = 1024
	fewPart    = 8
)

// take gives a handler a slot.
func (t *table) take(h Handler) Handle {
	var index uint32
	if n := len(t.free); n > 0 {
		index = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		index = t.end
		t.end++
		if int(index/slotBlock) == len(t.blocks) {
			t.blocks = append(t.blocks, new([slotBlock]slot))
		}
	}
	s := t.at(index)
	s.handler, s.work, s.whole = h, 0, Handle{}
	if s.generation == 0 {
		s.generation = max(1, t.first)
	}
	t.used++
	t.few = max(t.few, t.used/fewPart)
	return Handle{index, s.generation}
}

// takeShared is take for the table of shared handles.
func (t *table) takeShared(h Handler) Handle {
	handle := t.take(h)
	handle.index |= sharedIndex
	return handle
}

// give takes a handle's slot back, if it is still the handle's.
func (t *table) give(h Handle) {
	s := t.find(h)
	if s == nil {
		return
	}
	s.handler = nil
	if s.generation++; s.generation == 0 { // the zero Handle is none
		s.generation = 1
	}
	t.free = append(t.free, h.index)
	if t.used--; t.used <= t.few && t.end > smallTable {
		t.shrink()
	}
}

// shrink gives the blocks back that are behind the last slot in use. The slots that come there later begin with a
// generation that those had not: an event of theirs may be left in the batch.
func (t *table) shrink() {
	t.few = t.used / 2
	end := t.end
	for end > 0 && t.at(end-1).handler == nil {
		end--
	}
	blocks := (end + slotBlock - 1) / slotBlock
	end = min(blocks*slotBlock, t.end)
	if end == t.end {
		return
	}
	for i := end; i < t.end; i++ {
		t.first = max(t.first, t.at(i).generation)
	}
	t.blocks, t.end = slices.Clone(t.blocks[:blocks]), end
	t.free = slices.Clone(slices.DeleteFunc(t.free, func(index uint32) bool { return index >= end }))
}

// find gives the slot of a handle, nil if it has been given back.
func (t *table) find(h Handle) *slot {
	if h.index >= t.end {
		return nil
	}
	if s := t.at(h.index); s.generation == h.generation && s.handler != nil {
		return s
	}
	return nil
}

// count counts work, for the slot that it gives.
func (t *table) count(s *slot, units uint32) *slot {
	if whole := t.find(s.whole); whole != nil {
		s = whole
	}
	s.work += units
	return s
}

// at gives the slot with an index that was used.
func (t *table) at(index uint32) *slot { return &t.blocks[index/slotBlock][index%slotBlock] }
