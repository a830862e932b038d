package splice

// chunkSizes are the sizes of the buffers that hold copied bytes between turns: what waits is mostly a small message, and
// should not hold as much as a stream.
var chunkSizes = [...]int{2 << 10, 16 << 10, copySize}

// maxFreeChunks is how many chunks of a size are kept for the next pump whose destination is full.
const maxFreeChunks = 8

// chunkPool lends chunks to the pumps of one loop. Its zero value is empty.
type chunkPool struct{ free [len(chunkSizes)][][]byte }

// keep copies bytes, copySize of them at the most, to a chunk. What is given has the chunk's capacity.
func (c *chunkPool) keep(b []byte) []byte {
	class := 0
	for len(b) > chunkSizes[class] {
		class++
	}
	if n := len(c.free[class]); n > 0 {
		chunk := c.free[class][n-1]
		c.free[class] = c.free[class][:n-1]
		return append(chunk[:0], b...)
	}
	return append(make([]byte, 0, chunkSizes[class]), b...)
}

// put takes back what keep has given; nil is nothing.
func (c *chunkPool) put(chunk []byte) {
	for class, size := range chunkSizes {
		if cap(chunk) == size && len(c.free[class]) < maxFreeChunks {
			c.free[class] = append(c.free[class], chunk)
		}
	}
}
