package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// patched applies MongoDB's updateDescription to a document in JSON.
func patched(document any, description object) (any, error) {
	// Both in place; an array that grows or shrinks is put back into what holds it.
	for _, array := range list(description["truncatedArrays"]) {
		array, _ := array.(object)
		path, _ := array["field"].(string)
		size, err := number(array["newSize"])
		if err != nil {
			return nil, err
		}
		shorten := func(value any) any { return list(value)[:size] }
		if document, err = changed(document, steps(path, description), shorten); err != nil {
			return nil, err
		}
	}
	updated, _ := description["updatedFields"].(object)
	for path, value := range updated {
		var err error
		set := func(any) any { return value }
		if document, err = changed(document, steps(path, description), set); err != nil {
			return nil, err
		}
	}
	for _, path := range list(description["removedFields"]) {
		path, _ := path.(string)
		way := steps(path, description)
		name := way[len(way)-1]
		remove := func(parent any) any {
			if parent, isObject := parent.(object); isObject {
				delete(parent, name)
			}
			return parent
		}
		var err error
		if document, err = changed(document, way[:len(way)-1], remove); err != nil {
			return nil, err
		}
	}
	return document, nil
}

// changed returns the value with what is at the end of the way changed.
func changed(value any, way []string, how func(any) any) (any, error) {
	if len(way) == 0 {
		return how(value), nil
	}
	var err error
	switch value := value.(type) {
	case object:
		value[way[0]], err = changed(value[way[0]], way[1:], how)
		return value, err
	case []any:
		index, err := strconv.Atoi(way[0])
		if err != nil {
			return nil, err
		}
		// MongoDB fills what is between the end and a new element with null.
		for len(value) <= index {
			value = append(value, nil)
		}
		value[index], err = changed(value[index], way[1:], how)
		return value, err
	}
	return nil, fmt.Errorf("there is no %s in %v", way[0], value)
}

// steps of a path. Where a name has a dot or is all digits, MongoDB tells how the path is meant.
func steps(path string, description object) []string {
	meant, _ := description["disambiguatedPaths"].(object)
	parts := list(meant[path])
	if parts == nil {
		return strings.Split(path, ".")
	}
	var names []string
	for _, part := range parts {
		if name, isName := part.(string); isName {
			names = append(names, name)
		} else if index, err := number(part); err == nil {
			names = append(names, strconv.Itoa(index))
		}
	}
	return names
}

// number of relaxed or canonical Extended JSON.
func number(value any) (int, error) {
	switch value := value.(type) {
	case json.Number:
		return strconv.Atoi(value.String())
	case object:
		for _, text := range value {
			text, _ := text.(string)
			return strconv.Atoi(text)
		}
	}
	return 0, fmt.Errorf("%v is not a number", value)
}
