package splice

// handler is what a descriptor's events go to: an acceptor or a leg.
type handler interface{ ready(events uint32) }

// slot leads from a descriptor to its handler. The generation tells the events of a descriptor from those of
// an earlier one with the same number, which may be left in the batch that closed it.
type slot struct {
	handler    handler
	generation int32
}

// slots has a slot for every descriptor, made in blocks so that they stay where they are and nothing is copied as they
// become more. Its zero value is empty.
type slots struct{ blocks []*[slotBlock]slot }

const slotBlock = 128

// at gives the slot of a descriptor.
func (s *slots) at(fd int) *slot {
	for fd >= len(s.blocks)*slotBlock {
		s.blocks = append(s.blocks, new([slotBlock]slot))
	}
	return &s.blocks[fd/slotBlock][fd%slotBlock]
}

// all yields every slot.
func (s *slots) all() func(yield func(slot) bool) {
	return func(yield func(slot) bool) {
		for _, block := range s.blocks {
			for i := range block {
				if !yield(block[i]) {
					return
				}
			}
		}
	}
}
