package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// printer writes rows.
type printer func(w io.Writer, rows []*row) error

// columns are those of the table, as templates of a row.
const (
	columns    = "{{.Port}}\t{{.Container}}%s%s\t{{.State}}\t{{.Age}}\t{{.Connections}}\t{{.Total}}\t{{.Received}}\t{{.Sent}}\t{{.Rate}}\t{{.Spliced}}\t{{.Dropped}}\t{{.Errors}}\t{{.Bypassed}}"
	nameColumn = "\t{{.Name}}"
	nsColumn   = "\t{{.Namespace}}"
)

// table prints a line for each port. There is a column of names if one is known, and of namespaces if there are several.
func table(w io.Writer, rows []*row) error {
	var name, namespace string
	for _, r := range rows {
		if r.Name != "" {
			name = nameColumn
		}
		if r.Namespace != "" {
			namespace = nsColumn
		}
	}
	text := fmt.Sprintf(columns, name, namespace)
	p, err := templateTable(text)
	if err != nil {
		return err
	}
	return p(w, rows)
}

// asJSON prints all ports as one list.
func asJSON(w io.Writer, rows []*row) error { return json.NewEncoder(w).Encode(rows) }

// format makes a printer of what --format says, which is as docker has it: "table", "json", a template for each port, or
// "table" and one, for a table with heads.
func format(text string) (printer, error) {
	rest, isTable := strings.CutPrefix(text, "table")
	switch {
	case isTable && strings.TrimSpace(rest) == "":
		return table, nil
	case isTable:
		return templateTable(escapes.Replace(strings.TrimSpace(rest)))
	case text == "json":
		text = "{{json .}}"
	}
	t, err := template.New("--format").Funcs(functions).Parse(escapes.Replace(text))
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, rows []*row) error { return each(w, t, rows) }, nil
}

// escapes are what a shell's quotes leave.
var escapes = strings.NewReplacer(`\t`, "\t", `\n`, "\n")

func templateTable(text string) (printer, error) {
	t, err := template.New("--format").Funcs(functions).Parse(text)
	if err != nil {
		return nil, err
	}
	head, err := template.New("--format").Funcs(headFunctions).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	var heads bytes.Buffer
	if err := head.Execute(&heads, headers); err != nil {
		return nil, fmt.Errorf("a table has plain fields: %w", err)
	}
	return func(w io.Writer, rows []*row) error {
		columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(columns, heads.String()) // Flush tells of errors
		if err := each(columns, t, rows); err != nil {
			return err
		}
		return columns.Flush()
	}, nil
}

func each(w io.Writer, t *template.Template, rows []*row) error {
	for _, r := range rows {
		if err := t.Execute(w, r); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// functions are those that docker's templates have.
var functions = template.FuncMap{
	"json":  toJSON,
	"join":  strings.Join,
	"split": strings.Split,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"title": func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
	"pad": func(s string, before, after int) string {
		return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	},
	"truncate": func(s string, most int) string {
		return string([]rune(s)[:min(max(most, 0), len([]rune(s)))])
	},
}

// headFunctions leave a head as it is.
var headFunctions = template.FuncMap{}

func init() {
	for name := range functions {
		headFunctions[name] = func(head string, _ ...any) string { return head }
	}
	headFunctions["join"] = func(head any, _ ...any) string { return fmt.Sprint(head) }
}

func toJSON(what any) (string, error) {
	b, err := json.Marshal(what)
	return string(b), err
}
