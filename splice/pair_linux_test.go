package splice

import (
	"testing"
	"unsafe"
)

// TestPairIsSmall: an idle connection is two descriptors and a pair, which is one of the sizes that Go's allocator has.
// A few bytes more would cost each of them 16.
func TestPairIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(pair{}); size > 240 {
		t.Errorf("a pair has %d bytes, want 240 at most", size)
	}
}
