package journal

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
)

// name is what every line begins with on standard error; the journal and syslog have it as a field.
const name = "portsplice"

// Log is a slog.Handler. Its messages are whole sentences for people, which need no attributes; those are for machines.
var _ slog.Handler = (*Log)(nil)

// Enabled says whether lines of a level are written: from Info on.
func (l *Log) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle writes a line. It waits for a standard error that is not read, and for no journal and no syslog: if neither takes
// the line, the error is why, and is syscall.EAGAIN if they may take it later.
func (l *Log) Handle(ctx context.Context, r slog.Record) error { return l.handler().Handle(ctx, r) }

// WithAttrs gives a handler of lines that have these attributes, too.
func (l *Log) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }

// WithGroup gives a handler of lines whose attributes are in a group.
func (l *Log) WithGroup(group string) slog.Handler { return l.handler().WithGroup(group) }

func (l *Log) handler() handler {
	return handler{log: l, json: func(w io.Writer) slog.Handler {
		h := slog.Handler(slog.NewJSONHandler(w, nil))
		if l.Port != "" {
			h = h.WithAttrs([]slog.Attr{slog.String("port", l.Port)})
		}
		return h
	}}
}

// handler is a Log with attributes.
type handler struct {
	log    *Log
	json   func(io.Writer) slog.Handler
	fields []field
	prefix string // of the names of fields, from the groups
}

// field is an attribute as the journal has it.
type field struct{ name, value string }

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.log.Enabled(ctx, level)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.log.unread() {
		line, err := h.line(ctx, r)
		if err == nil {
			err = h.log.write(line)
		}
		return err
	}
	fields := h.fields[:len(h.fields):len(h.fields)]
	r.Attrs(func(a slog.Attr) bool {
		fields = appendFields(fields, h.prefix, a)
		return true
	})
	return h.log.send(priorityOf(r.Level), r.Message, fields)
}

// line is a line for standard error.
func (h handler) line(ctx context.Context, r slog.Record) ([]byte, error) {
	if !h.log.JSON.Load() {
		return []byte(name + ": " + r.Message + "\n"), nil
	}
	var b bytes.Buffer
	err := h.json(&b).Handle(ctx, r)
	return b.Bytes(), err
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	json := h.json
	h.json = func(w io.Writer) slog.Handler { return json(w).WithAttrs(attrs) }
	h.fields = h.fields[:len(h.fields):len(h.fields)]
	for _, a := range attrs {
		h.fields = appendFields(h.fields, h.prefix, a)
	}
	return h
}

func (h handler) WithGroup(group string) slog.Handler {
	json := h.json
	h.json = func(w io.Writer) slog.Handler { return json(w).WithGroup(group) }
	h.prefix += group + "_"
	return h
}

// appendFields appends an attribute, or those of a group.
func appendFields(fields []field, prefix string, a slog.Attr) []field {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		return append(fields, field{fieldName(prefix + a.Key), v.String()})
	}
	if a.Key != "" {
		prefix += a.Key + "_"
	}
	for _, a := range v.Group() {
		fields = appendFields(fields, prefix, a)
	}
	return fields
}

// fieldName is the journal's name of an attribute: it takes capitals, digits and underscores, 64 of them.
func fieldName(key string) string {
	key = "PORTSPLICE_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return key[:min(len(key), 64)]
}

// priority is what syslog(3) calls a level.
type priority int

func priorityOf(level slog.Level) priority {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	}
	return 6
}
