#!/usr/bin/env python3
"""Validates bills of materials by others' code: validate-bills.py SPDX.json CYCLONEDX.json PURLS.txt"""
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

spdx, cyclonedx, purls = sys.argv[1:]
document = parse_file(spdx)
problems = [str(message.validation_message) for message in validate_full_spdx_document(document)]
found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(cyclonedx).read())
if found:
    problems.append(str(found))
for purl in open(purls).read().split():
    again = PackageURL.from_string(purl).to_string()
    if again != purl:
        problems.append(f"{purl} is written {again}")
print("\n".join(problems) or "valid")
sys.exit(1 if problems else 0)
