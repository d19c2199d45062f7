// Applies MongoDB's updateDescription to a document in JSON.
"use strict";

function patched(document, { truncatedArrays, updatedFields, removedFields, disambiguatedPaths }) {
  const after = structuredClone(document);
  // Where a name has a dot or is all digits, MongoDB tells how the path is meant.
  const steps = (path) => disambiguatedPaths?.[path] ?? path.split(".");
  for (const { field, newSize } of truncatedArrays ?? []) {
    const [parent, name] = place(after, steps(field));
    parent[name].length = number(newSize);
  }
  for (const [path, value] of Object.entries(updatedFields ?? {})) {
    const [parent, name] = place(after, steps(path));
    // MongoDB fills what is between the end of an array and a new element with null.
    while (Array.isArray(parent) && parent.length < name) parent.push(null);
    parent[name] = value;
  }
  for (const path of removedFields ?? []) {
    const [parent, name] = place(after, steps(path));
    delete parent[name];
  }
  return after;
}

// What holds the last step of a path, and that step.
function place(document, steps) {
  const names = steps.map((step) => (typeof step === "string" ? step : number(step)));
  const last = names.pop();
  return [names.reduce((value, name) => value[name], document), last];
}

// A number of relaxed or canonical Extended JSON.
function number(value) {
  return typeof value === "object" ? Number(Object.values(value)[0]) : value;
}

module.exports = { patched };
