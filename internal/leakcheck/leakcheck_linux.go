package leakcheck

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// take reads the descriptors of this process and the children of all its threads from /proc.
func take() (snapshot, error) {
	var s snapshot
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // the descriptor that listed the directory
		}
		if err != nil {
			return nil, err
		}
		s = append(s, fmt.Sprintf("descriptor %s: %s", fd.Name(), target))
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	for _, thread := range threads {
		children, err := os.ReadFile("/proc/self/task/" + thread.Name() + "/children")
		if err != nil {
			continue // the thread ended, or the kernel has no CONFIG_PROC_CHILDREN
		}
		for pid := range strings.FieldsSeq(string(children)) {
			name, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			s = append(s, fmt.Sprintf("process %s: %s", pid, strings.ReplaceAll(string(name), "\x00", " ")))
		}
	}
	return s, nil
}
