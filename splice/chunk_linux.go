package splice

// maxFreeChunks is how many chunks are kept for the next pump whose destination is full.
const maxFreeChunks = 8

// chunkPool lends buffers of copySize to pumps that hold copied bytes between turns.
type chunkPool struct{ free [][]byte }

func (c *chunkPool) get() []byte {
	if n := len(c.free); n > 0 {
		last := c.free[n-1]
		c.free = c.free[:n-1]
		return last
	}
	return make([]byte, copySize)
}

func (c *chunkPool) put(chunk []byte) {
	if len(c.free) < maxFreeChunks {
		c.free = append(c.free, chunk)
	}
}
