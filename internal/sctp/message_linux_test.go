package sctp

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// fill adds n bytes to m in pieces as large as its room.
func fill(m *message, n int) error {
	for n > 0 {
		room := m.room()
		piece := min(n, len(room))
		for i := range piece {
			room[i] = byte(len(m.data) + i)
		}
		if err := m.extend(piece); err != nil {
			return err
		}
		n -= piece
	}
	return nil
}

func TestMessageGrows(t *testing.T) {
	for _, n := range []int{1, firstRoom - minRoom, firstRoom, firstRoom + 1, maxMessage} {
		m := messages.Get().(*message)
		if err := fill(m, n); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		want := make([]byte, n)
		for i := range want {
			want[i] = byte(i)
		}
		if !bytes.Equal(m.data, want) {
			t.Errorf("%d bytes did not stay what they were", n)
		}
		if room := len(m.room()); room < minRoom {
			t.Errorf("%d bytes: room for %d more; want %d at least", n, room, minRoom)
		}
		m.release()
	}
}

func TestMessageTooLarge(t *testing.T) {
	if err := fill(newMessage(), maxMessage+1); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("got %v; want EMSGSIZE", err)
	}
}

func TestReleasedMessageIsEmpty(t *testing.T) {
	m := newMessage()
	if err := fill(m, 10); err != nil {
		t.Fatal(err)
	}
	m.release()
	if len(m.data) != 0 {
		t.Errorf("%d bytes left", len(m.data))
	}
}
