// npm run schema:breaking: fails where schema.graphql takes away what the released schema promised, unless the change is
// acknowledged in docs/schema/acknowledged.json by its path and a reason. Takes other files in that order.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CriticalityLevel, diff } from '@graphql-inspector/core';
import { buildSchema } from 'graphql';
import { root } from './run.mjs';

const [
  released = join(root, 'docs/schema/released.graphql'),
  present = join(root, 'schema.graphql'),
  acknowledgements = join(root, 'docs/schema/acknowledged.json'),
] = process.argv.slice(2);

const schemaOf = async (file) => buildSchema(await readFile(file, 'utf8'));

const changes = await diff(await schemaOf(released), await schemaOf(present));
const breaking = changes.filter(({ criticality }) => criticality.level === CriticalityLevel.Breaking);
const acknowledged = JSON.parse(await readFile(acknowledgements, 'utf8'));
const isAcknowledged = ({ path, type }) =>
  acknowledged.some((entry) => entry.path === path && entry.type === type && Boolean(entry.reason));
const open = breaking.filter((change) => !isAcknowledged(change));
for (const { type, path, message } of open) console.error(`${type} ${path}: ${message}`);
const idle = acknowledged.filter(({ path, type }) => !breaking.some((c) => c.path === path && c.type === type));
for (const { path, type } of idle) console.error(`${type} ${path} is acknowledged, and no such change was made.`);
if (open.length > 0) {
  console.error('Clients of the released schema break. Keep what is there, or acknowledge each change with a reason:');
  console.error(JSON.stringify(open.map(({ type, path }) => ({ type, path, reason: '' }))));
}
if (open.length + idle.length > 0) process.exitCode = 1;
