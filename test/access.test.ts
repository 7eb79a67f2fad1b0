import {
  buildSchema,
  getNamedType,
  type GraphQLField,
  type GraphQLObjectType,
  isIntrospectionType,
  isNonNullType,
  isObjectType,
} from 'graphql';
import { describe, expect, test } from 'vitest';
import { FRONTEND_ACTIONS, type FrontendAction, type Permission, PERMISSIONS } from '../src/domain/principal.js';
import { ACCESS, type Access, NODE_ACCESS } from '../src/graphql/access.js';
import { accessOf, fieldsWithoutRule, guard } from '../src/graphql/guard.js';
import { schema } from '../src/graphql/schema.js';
import { type Caller, codeOf, createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { createTenant, PRODUCT } from './support/story.js';
import { openSse } from './support/streams.js';

const server = await startTestServer();
const tenantId = await createTenant(server);

const objects = Object.values(schema.getTypeMap()).filter(
  (type): type is GraphQLObjectType => isObjectType(type) && !isIntrospectionType(type),
);

describe('the table of access rules', () => {
  test('has an entry for every field of the schema, and for every type that has an id', () => {
    expect(fieldsWithoutRule(schema)).toEqual([]);
  });

  test('names nothing that is not in the schema', () => {
    const gone = Object.entries(ACCESS).flatMap(([typename, entry]) => {
      const type = schema.getType(typename);
      if (type === undefined || type === null) return [typename];
      const fields = 'getFields' in type ? Object.keys(type.getFields()) : [];
      return entry === 'PART' ? [] : Object.keys(entry).filter((name) => !fields.includes(name));
    });
    expect(gone).toEqual([]);
    const nodes = objects.filter((type) => type.getInterfaces().some(({ name }) => name === 'Node'));
    expect(Object.keys(NODE_ACCESS).toSorted()).toEqual(nodes.map(({ name }) => name).toSorted());
  });

  test('has a rule of its own, not that of a part, for every operation', () => {
    for (const root of ['Query', 'Mutation', 'Subscription']) {
      const fields = Object.keys((schema.getType(root) as GraphQLObjectType).getFields());
      expect(fields.filter((name) => accessOf(root, name) === 'PART')).toEqual([]);
    }
  });

  test('keeps a field that nobody has made a rule for from being served', () => {
    const grown = buildSchema('type Query { viewer: Int forgotten: Int } type Forgotten { field: Int }');
    expect(fieldsWithoutRule(grown)).toEqual(['Query.forgotten', 'Forgotten.field']);
    expect(() => guard(grown)).toThrow('No access rule for Query.forgotten, Forgotten.field.');
  });
});

/** A value for each required argument, right in form and about nothing that exists. */
const VALUES: Record<string, string> = {
  ID: '"VGVuYW50OjAwMDAwMDAwLTAwMDAtNDAwMC04MDAwLTAwMDAwMDAwMDAwMA"',
  String: '"nothing"',
  URL: '"https://nothing.example"',
  Boolean: 'true',
  Int: '1',
  DateTime: '"2020-01-01T00:00:00Z"',
};

function valueOf(type: unknown): string {
  const text = String(type);
  if (text.replace(/!$/, '').startsWith('[')) return '[]';
  const named = getNamedType(type as never) as unknown as {
    name: string;
    getFields?: () => object;
    getValues?: () => unknown[];
  };
  const known = VALUES[named.name];
  if (known !== undefined) return known;
  if (named.getValues) return (named.getValues()[0] as { name: string }).name;
  const fields = Object.values(named.getFields?.() ?? {}) as { name: string; type: unknown; defaultValue?: unknown }[];
  const required = fields.filter((field) => isNonNullType(field.type) && field.defaultValue === undefined);
  return `{ ${required.map((field) => `${field.name}: ${valueOf(field.type)}`).join(', ')} }`;
}

/** The shortest operation that reaches a root field; what it names does not exist, so that it changes nothing. */
function operationOf(root: string, field: GraphQLField<unknown, unknown>): string {
  const required = field.args.filter(({ type, defaultValue }) => isNonNullType(type) && defaultValue === undefined);
  const args = required.map((arg) => `${arg.name}: ${valueOf(arg.type)}`).join(', ');
  const isLeaf = getNamedType(field.type).name === 'ID';
  return `${root.toLowerCase()} { ${field.name}${args === '' ? '' : `(${args})`} ${isLeaf ? '' : '{ __typename }'} }`;
}

const rootFields = ['Query', 'Mutation', 'Subscription'].flatMap((root) =>
  Object.values((schema.getType(root) as GraphQLObjectType).getFields())
    // Its rule follows from the type of the id; see below.
    .filter(({ name }) => name !== 'node')
    .map((field) => ({ root, field, place: `${root}.${field.name}`, operation: operationOf(root, field) })),
);

async function isRefused({ root, operation }: (typeof rootFields)[number], caller: Caller): Promise<boolean> {
  if (root !== 'Subscription') return codeOf(await caller.graphql(operation)) === 'FORBIDDEN';
  const stream = await openSse(server.url, operation, { adminKey: caller.token, headers: caller.headers });
  // A stream that may be opened has nothing to say, or has ended because what it is about does not exist.
  const waiting = new Promise<null>((resolve) => setTimeout(() => resolve(null), 150));
  const first = await Promise.race([stream.next().catch(() => null), waiting]);
  await stream.close();
  return JSON.stringify(first)?.includes('"FORBIDDEN"') ?? false;
}

interface Kind {
  name: string;
  permission?: Permission;
  action?: FrontendAction;
  isBound: boolean;
  caller: Caller;
}

/** Each kind of principal with each single permission or action. */
const kinds: Kind[] = [];
for (const permission of PERMISSIONS) {
  kinds.push({
    name: `a server key with ${permission}`,
    permission,
    isBound: false,
    caller: await createServerKey(server, { permissions: [permission] }),
  });
  if (permission === 'PROVIDER_APPS_WRITE') continue;
  kinds.push({
    name: `a server key of one tenant with ${permission}`,
    permission,
    isBound: true,
    caller: await createServerKey(server, { permissions: [permission], tenantId }),
  });
}
for (const action of FRONTEND_ACTIONS) {
  kinds.push({
    name: `a frontend session with ${action}`,
    action,
    isBound: true,
    caller: await createFrontendSession(server, { tenantId, userId: 'user_1', allow: [action] }, PRODUCT),
  });
}

/** Written once more, from the words of the table, so that what enforces it is not what is compared with it. */
function mayAsk(access: Access | undefined, { permission, action, isBound }: Kind): boolean {
  if (access === undefined) return false;
  if (typeof access === 'string') return true;
  if (action !== undefined) return access.actions.includes(action);
  if (permission === undefined || !access.permissions.includes(permission)) return false;
  return !(access.global === true && isBound) && !(access.all === true && access.permissions.length > 1);
}

describe.each(kinds.map((kind) => [kind.name, kind] as const))('%s', (_name, kind) => {
  test('may run the operations that its rule allows, and is refused every other', async () => {
    const wrong: string[] = [];
    for (const rootField of rootFields) {
      const allowed = mayAsk(accessOf(rootField.root, rootField.field.name), kind);
      if ((await isRefused(rootField, kind.caller)) === allowed) {
        wrong.push(`${rootField.place} is ${allowed ? 'refused' : 'served'}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test('may look up the types that their rule allows, and is refused every other whether or not it exists', async () => {
    for (const [typename, access] of Object.entries(NODE_ACCESS)) {
      const id = Buffer.from(`${typename}:00000000-0000-4000-8000-000000000000`).toString('base64url');
      const answer = await kind.caller.graphql('query ($id: ID!) { node(id: $id) { __typename } }', { id });
      expect([typename, codeOf(answer) === 'FORBIDDEN']).toEqual([typename, !mayAsk(access, kind)]);
    }
  });
});

describe('a Secret', () => {
  const secrets = objects.flatMap((type) =>
    Object.values(type.getFields())
      .filter((field) => getNamedType(field.type).name === 'Secret')
      .map((field) => `${type.name}.${field.name}`),
  );

  /** Every way from a root field that a principal may take, over the fields that it may ask for. */
  function reachable(kind: Kind): Set<string> {
    const seen = new Set<string>();
    const visit = (type: GraphQLObjectType) => {
      for (const field of Object.values(type.getFields())) {
        const place = `${type.name}.${field.name}`;
        if (seen.has(place) || !mayAsk(accessOf(type.name, field.name), kind)) continue;
        seen.add(place);
        const named = getNamedType(field.type);
        const next =
          'getTypes' in named
            ? named.getTypes()
            : 'resolveType' in named && 'getInterfaces' in named && !isObjectType(named)
              ? schema.getPossibleTypes(named as never)
              : [named];
        // What `node` gives follows from its own rules.
        const open = next.filter((each) => place !== 'Query.node' || mayAsk(NODE_ACCESS[each.name], kind));
        for (const each of open) if (isObjectType(each)) visit(each);
      }
    };
    for (const root of ['Query', 'Mutation', 'Subscription']) visit(schema.getType(root) as GraphQLObjectType);
    return seen;
  }

  test('is out of reach of every frontend session, by whatever way through the schema', () => {
    expect(secrets.length).toBeGreaterThan(2);
    for (const kind of kinds.filter(({ action }) => action !== undefined)) {
      const seen = reachable(kind);
      expect(seen.size).toBeGreaterThan(20);
      expect(secrets.filter((place) => seen.has(place))).toEqual([]);
    }
    // A control: the same walk does find them for server keys.
    const found = new Set(
      kinds.filter(({ permission }) => permission !== undefined).flatMap((kind) => [...reachable(kind)]),
    );
    expect(secrets.filter((place) => !found.has(place))).toEqual([]);
  });

  test('is refused to a frontend session by its type, even where a rule would let it through', () => {
    const open = buildSchema('scalar Secret type Query { viewer: Secret }');
    const field = (open.getType('Query') as GraphQLObjectType).getFields()['viewer']!;
    field.resolve = () => 'a secret';
    guard(open);
    const ask = (kind: string) => () => field.resolve?.({}, {}, { principal: { kind } }, {} as never);
    expect(ask('SERVER_KEY')()).toBe('a secret');
    expect(ask('FRONTEND_SESSION')).toThrow('may not do this');
  });
});
