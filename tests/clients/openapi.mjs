// Holds the document on stdin against the JSON schema of the OpenAPI version that it says it is of, with npm
// @seriousme/openapi-schema-validator 2.11; prints {valid, version, errors}.
import { readFileSync } from "node:fs";
import { Validator } from "@seriousme/openapi-schema-validator";

const validator = new Validator();
const { valid, errors } = await validator.validate(JSON.parse(readFileSync(0, "utf8")));
console.log(JSON.stringify({ valid, version: validator.version ?? null, errors: errors ?? null }));
