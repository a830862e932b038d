package bypass

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// longest is how many bytes a message has at most.
const longest = 4096

// refusal is an error that came as text.
type refusal struct {
	class  error
	reason string
}

func (r refusal) Error() string { return r.reason }
func (r refusal) Unwrap() error { return r.class }

// classes are what the other process can ask of an error.
var classes = map[string]error{"unsupported": errors.ErrUnsupported, "permission": os.ErrPermission}

// refuse makes a message of an error.
func refuse(err error) string {
	name := "other"
	for n, class := range classes {
		if errors.Is(err, class) {
			name = n
		}
	}
	text := fmt.Sprintf("no %s %v", name, err)
	return text[:min(len(text), longest)]
}

// accepted gives what follows ok in a message, or the error that it has.
func accepted(message string) (rest string, err error) {
	verdict, rest, _ := strings.Cut(message, " ")
	switch verdict {
	case "ok":
		return rest, nil
	case "no":
		class, reason, _ := strings.Cut(rest, " ")
		return "", refusal{classes[class], reason}
	}
	return "", fmt.Errorf("not an answer: %q", message)
}
