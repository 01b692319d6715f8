"""web/openapi.json as the checks see it: references resolved, operations found by path, and the rules that the document itself keeps.

Needs Debian's python3-jsonschema. Debian has no validator for OpenAPI 3.1 documents, so faults() has the rules that matter here."""
import json
import re

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.validators import RefResolver

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
SCHEMA_MAP_KEYWORDS = ("properties", "patternProperties", "$defs")
SCHEMA_LIST_KEYWORDS = ("oneOf", "anyOf", "allOf", "prefixItems")
SCHEMA_KEYWORDS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


class Description:
    def __init__(self, document):
        self.document = document
        self.resolver = RefResolver("", document)
        self.validators = {}
        self.templates = sorted(((path, self._pattern(path)) for path in document["paths"]), key=lambda each: each[0].count("{"))

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    @staticmethod
    def _pattern(path):
        """{id} is a positive whole number, as in the server's router; any other {name} is one segment."""
        text = re.escape(path).replace(r"\{id\}", "[1-9][0-9]{0,15}")
        return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", text) + "/?$")

    def resolve(self, node):
        while isinstance(node, dict) and "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def find(self, path):
        """The template of a path, literal ones first, or None."""
        return next((template for template, pattern in self.templates if pattern.match(path)), None)

    def operations(self):
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield path, method, item[method]

    def operation(self, template, method):
        return self.document["paths"][template].get(method)

    def response(self, operation, status):
        return self.resolve(operation["responses"].get(str(status)))

    def component(self, kind, name):
        return self.document["components"][kind][name]

    def errors(self, schema, value):
        """What is wrong with a value, as sentences."""
        validator = self.validators.get(id(schema))
        if validator is None:
            validator = Draft202012Validator(schema, resolver=self.resolver, format_checker=FormatChecker())
            self.validators[id(schema)] = validator
        return [f"{'/'.join(map(str, error.absolute_path)) or 'body'}: {_reason(error)}" for error in validator.iter_errors(value)]

    # --- the document's own rules --------------------------------------------------------------------------
    def faults(self):
        found = []
        found += self._reference_faults()
        if found:
            return found
        found += self._operation_faults()
        found += self._schema_faults()
        return found or self._example_faults()

    def _reference_faults(self):
        found, used = [], set()
        for node in _nodes(self.document):
            reference = node.get("$ref")
            if not isinstance(reference, str):
                continue
            used.add(reference)
            try:
                self.resolver.resolve(reference)
            except Exception:
                found.append(f"{reference}: there is no such thing")
        for mapping in (node["mapping"] for node in _nodes(self.document) if isinstance(node.get("mapping"), dict)):
            used.update(mapping.values())
            found += [f"discriminator: {each} is not there" for each in mapping.values() if each.split("/")[-1] not in self.document["components"]["schemas"]]
        by_name = {("responses", "MethodNotAllowed"), ("schemas", "Problem")}  # said in words, and by check_exchanges.py
        for kind in ("schemas", "responses", "headers", "parameters", "examples"):
            for name in self.document["components"][kind]:
                if f"#/components/{kind}/{name}" not in used and (kind, name) not in by_name:
                    found.append(f"components/{kind}/{name}: nothing refers to it")
        return found

    def _operation_faults(self):
        found, ids = [], set()
        tags = {tag["name"] for tag in self.document["tags"]}
        for path, method, operation in self.operations():
            where = f"{method.upper()} {path}"
            if operation["operationId"] in ids:
                found.append(f"{where}: a second operation {operation['operationId']}")
            ids.add(operation["operationId"])
            found += [f"{where}: no tag {tag}" for tag in operation["tags"] if tag not in tags]
            found += [f"{where}: has no {member}" for member in ("summary", "description") if not operation.get(member)]
            parameters = self.document["paths"][path].get("parameters", []) + operation.get("parameters", [])
            in_path = {each["name"] for each in map(self.resolve, parameters) if each["in"] == "path"}
            if in_path != set(re.findall(r"\{(\w+)\}", path)):
                found.append(f"{where}: the path's parameters are not those described")
            if not any(status.startswith("2") for status in operation["responses"]):
                found.append(f"{where}: cannot succeed")
            if operation.get("security") != [] and "401" not in operation["responses"]:
                found.append(f"{where}: needs a token, but is never answered 401")
            for status in operation["responses"]:
                found += self._response_faults(f"{where} {status}", int(status), self.response(operation, status))
        return found

    def _response_faults(self, where, status, response):
        found = []
        if not response.get("description"):
            found.append(f"{where}: has no description")
        if status >= 400 and status != 503 and list(response.get("content", {})) != ["application/problem+json"]:
            found.append(f"{where}: an error that is no problem")
        if status in (429, 503) and "Retry-After" not in response.get("headers", {}):
            found.append(f"{where}: does not say when to come again")
        for schema in self._problem_schemas(response):
            if schema["properties"]["status"]["const"] != status:
                found.append(f"{where}: describes {schema['properties']['type']['const']}, which has another status")
        return found

    def _problem_schemas(self, response):
        content = response.get("content", {}).get("application/problem+json")
        if content is None:
            return []
        schema = self.resolve(content["schema"])
        return [self.resolve(each) for each in schema.get("oneOf", [schema])]

    def _schema_faults(self):
        found = []
        schemas = self.document["components"]["schemas"]
        for name, schema in schemas.items():
            for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema):
                found.append(f"schema {name}: {error.message}")
            for part in _subschemas(schema):
                missing = set(part.get("required", [])) - set(part.get("properties", {}))
                if part.get("type") == "object" and missing:
                    found.append(f"schema {name}: requires {sorted(missing)}, which it does not describe")
        listed = set(schemas["ProblemType"]["enum"])
        own = {schema["properties"]["type"]["const"] for schema in schemas.values() if "const" in schema.get("properties", {}).get("type", {})}
        found += [f"problem type {slug}: in one of ProblemType and the problems' schemas, not in both" for slug in sorted(listed ^ own)]
        return found

    def _example_faults(self):
        found = []
        for node in _nodes(self.document):
            if "schema" not in node or "examples" not in node:
                continue
            for name, example in node["examples"].items():
                found += [f"example {name}: {error}" for error in self.errors(node["schema"], self.resolve(example)["value"])]
        return found


def _reason(error):
    """Of several alternatives the complaints of the one that came nearest: with oneOf, "is not valid under any" helps nobody."""
    if not error.context:
        return error.message[:300]
    branches = {}
    for sub in error.context:
        branches.setdefault(sub.schema_path[0], []).append(sub)
    nearest = min(branches.values(), key=lambda each: (any(sub.validator == "const" for sub in each), len(each)))
    return "; ".join(sub.message[:200] for sub in nearest)


def _nodes(node):
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def _subschemas(schema):
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in SCHEMA_MAP_KEYWORDS:
        for each in schema.get(keyword, {}).values():
            yield from _subschemas(each)
    for keyword in SCHEMA_LIST_KEYWORDS:
        for each in schema.get(keyword, []):
            yield from _subschemas(each)
    for keyword in SCHEMA_KEYWORDS:
        yield from _subschemas(schema.get(keyword))
