// verify.mjs BUNDLE KEY: verifies a bundle by a held key with the packages of the npm sigstore client; no log, no timestamp.
import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(process.env.CLIENTS + '/');
const { bundleFromJSON } = require('@sigstore/bundle');
const { toSignedEntity, toTrustMaterial, Verifier } = require('@sigstore/verify');
const { TrustedRoot } = require('@sigstore/protobuf-specs');

const [bundle, key] = process.argv.slice(2).map((path) => readFileSync(path, 'utf8'));
const held = { publicKey: createPublicKey(key), validFor: () => true };
const trusted = toTrustMaterial(TrustedRoot.fromJSON({}), () => held);
const verifier = new Verifier(trusted, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });
verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(bundle))));
console.log('verified');
