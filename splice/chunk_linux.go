package splice

// maxFreeChunks is how many chunks are kept for the next pump whose destination is full.
const maxFreeChunks = 8

// chunk is a buffer for copied bytes that wait.
type chunk [copySize]byte

// chunkPool lends chunks to pumps that hold copied bytes between turns.
type chunkPool struct{ free []*chunk }

func (c *chunkPool) get() *chunk {
	if n := len(c.free); n > 0 {
		last := c.free[n-1]
		c.free = c.free[:n-1]
		return last
	}
	return new(chunk)
}

func (c *chunkPool) put(used *chunk) {
	if len(c.free) < maxFreeChunks {
		c.free = append(c.free, used)
	}
}
