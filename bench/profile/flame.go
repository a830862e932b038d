package main

import (
	"fmt"
	"hash/fnv"
	"html"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// frame is a function in a flame graph: the time of all samples that reach it by the same way.
type frame struct {
	value    float64
	children map[string]*frame
}

func (f *frame) child(name string) *frame {
	if f.children == nil {
		f.children = map[string]*frame{}
	}
	if f.children[name] == nil {
		f.children[name] = new(frame)
	}
	return f.children[name]
}

func (f *frame) depth() int {
	deepest := 0
	for _, c := range f.children {
		deepest = max(deepest, c.depth())
	}
	return 1 + deepest
}

// The sizes of a flame graph, in the units of the drawing.
const (
	graphWidth  = 1200.0
	frameHeight = 18
	letterWidth = 6.5
)

// flameGraph draws a profile: who calls stands below whom it calls, and is as wide as the time that is spent there.
func flameGraph(title string, p *profile.Profile) string {
	root := new(frame)
	for _, s := range p.Sample {
		value := float64(s.Value[len(s.Value)-1])
		f := root
		f.value += value
		names := stack(s)
		slices.Reverse(names)
		for _, name := range names {
			f = f.child(name)
			f.value += value
		}
	}
	height := (1 + root.depth()) * frameHeight
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %d\" font-family=\"monospace\" "+
		"font-size=\"11\">\n<text x=\"4\" y=\"13\">%s</text>\n", graphWidth, height, html.EscapeString(title))
	if root.value > 0 {
		root.draw(&b, "all", 0, height-frameHeight, graphWidth/root.value)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw draws a frame and all that stands on it. The scale is width by value.
func (f *frame) draw(b *strings.Builder, name string, x float64, y int, scale float64) {
	width := f.value * scale
	if width < 0.5 {
		return // nobody would see it
	}
	label := ""
	if letters := int(width / letterWidth); letters > 3 {
		label = name[max(0, len(name)-letters):] // the end of a function's name tells more than its path
	}
	fmt.Fprintf(b, "<g><title>%s %.1f%%</title><rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\" "+
		"stroke=\"white\"/><text x=\"%.1f\" y=\"%d\">%s</text></g>\n", html.EscapeString(name), 100*width/graphWidth,
		x, y, width, frameHeight, colour(name), x+2, y+13, html.EscapeString(label))
	for _, child := range slices.Sorted(maps.Keys(f.children)) {
		c := f.children[child]
		c.draw(b, child, x, y-frameHeight, scale)
		x += c.value * scale
	}
}

// colour is the same for all functions of one owner.
func colour(function string) string {
	h := fnv.New32()
	_, _ = h.Write([]byte(owner(function))) // it takes everything
	return fmt.Sprintf("hsl(%d,70%%,75%%)", h.Sum32()%360)
}
