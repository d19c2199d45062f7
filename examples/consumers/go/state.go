package main

import "log"

// name of a document.
type name struct{ db, coll, key string }

type entry struct {
	position position
	// nil once it is deleted: the position stays, or a repeat would bring it back.
	document any
}

// state is what the consumer has of one queue: its documents, and which change of each came last. It is in memory, to
// keep the example short. A database would store a document and its position together.
type state struct {
	queue     string
	documents map[name]entry
}

// apply applies a change, unless it or a later one of its document has been applied; tells whether it was.
func (s *state) apply(c change) (bool, error) {
	if c.operation == "gap" {
		gap, _ := c.event["gap"].(object)
		log.Printf("%s: changes are missing here: %v (%v)", s.queue, gap["cause"], gap["detail"])
		return true, nil
	}
	if c.key == "" {
		s.applyToCollection(c)
		return true, nil
	}
	its := name{c.db, c.coll, c.key}
	last, isKnown := s.documents[its]
	if isKnown && !c.position.after(last.position) {
		return false, nil
	}
	if isKnown && c.position.seq <= last.position.seq {
		log.Printf("%s: the connector's numbers have begun anew", s.queue)
	}
	document, err := s.after(c, last.document)
	if err != nil {
		return false, err
	}
	s.documents[its] = entry{c.position, document}
	return true, nil
}

// after returns the document after the change.
func (s *state) after(c change, before any) (any, error) {
	switch {
	case c.operation == "delete":
		return nil, nil
	case c.document != nil:
		return c.document, nil
	case c.patch != nil && before != nil:
		return patched(before, c.patch)
	}
	// Too large for a message (x-mrcon-stripped), or consumption began in the middle: a snapshot
	// (watched.snapshot: initial) brings the rest.
	log.Printf("%s: %s of %s without the document", s.queue, c.operation, c.key)
	return before, nil
}

// applyToCollection does to all documents whose last change is older what happens to all documents of a collection.
func (s *state) applyToCollection(c change) {
	in := func(db, coll string) func(name) bool {
		return func(its name) bool { return its.db == db && its.coll == coll }
	}
	switch c.operation {
	case "drop":
		s.remove(c.position, in(c.db, c.coll))
	case "dropDatabase":
		s.remove(c.position, func(its name) bool { return its.db == c.db })
	case "rename":
		to, _ := c.event["to"].(object)
		db, _ := to["db"].(string)
		coll, _ := to["coll"].(string)
		s.remove(c.position, in(db, coll))
		for its, document := range s.remove(c.position, in(c.db, c.coll)) {
			s.documents[name{db, coll, its.key}] = entry{c.position, document}
		}
	}
}

// remove takes older documents out and returns them.
func (s *state) remove(at position, which func(name) bool) map[name]any {
	removed := map[name]any{}
	for its, found := range s.documents {
		if which(its) && at.after(found.position) {
			if found.document != nil {
				removed[its] = found.document
			}
			s.documents[its] = entry{position: at}
		}
	}
	return removed
}
