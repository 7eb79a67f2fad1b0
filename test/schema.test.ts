import {
  type GraphQLField,
  type GraphQLNamedType,
  getNamedType,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isIntrospectionType,
  isNonNullType,
  isListType,
  isObjectType,
  isScalarType,
  isSpecifiedScalarType,
  isUnionType,
} from 'graphql';
import { expect, test } from 'vitest';
import { schema } from '../src/graphql/schema.js';

const types = Object.values(schema.getTypeMap()).filter(
  (type) => !isIntrospectionType(type) && !isSpecifiedScalarType(type),
);
const named = (name: string): GraphQLNamedType => {
  const type = schema.getType(name);
  if (type === undefined || type === null) throw new Error(`There is no type ${name}.`);
  return type;
};
const capitalize = (name: string) => name.charAt(0).toUpperCase() + name.slice(1);

/** Every field of an object, an interface or an input object, by its place. */
function fields(): { place: string; field: GraphQLField<unknown, unknown>; owner: GraphQLNamedType }[] {
  return types.flatMap((owner) =>
    isObjectType(owner) || isInterfaceType(owner)
      ? Object.values(owner.getFields()).map((field) => ({ place: `${owner.name}.${field.name}`, field, owner }))
      : [],
  );
}

/** Everything that a reader of the schema can point at, with its description. */
function elements(): [string, string | null | undefined][] {
  return types.flatMap((type): [string, string | null | undefined][] => {
    const own: [string, string | null | undefined] = [type.name, type.description];
    if (isEnumType(type))
      return [
        own,
        ...type.getValues().map((v): [string, string | null | undefined] => [`${type.name}.${v.name}`, v.description]),
      ];
    if (isInputObjectType(type)) {
      return [
        own,
        ...Object.values(type.getFields()).map((f): [string, string | null | undefined] => [
          `${type.name}.${f.name}`,
          f.description,
        ]),
      ];
    }
    if (!isObjectType(type) && !isInterfaceType(type)) return [own];
    return [
      own,
      ...Object.values(type.getFields()).flatMap((field): [string, string | null | undefined][] => [
        [`${type.name}.${field.name}`, field.description],
        ...field.args.map((arg): [string, string | null | undefined] => [
          `${type.name}.${field.name}(${arg.name})`,
          arg.description,
        ]),
      ]),
    ];
  });
}

test('every element of the schema is described in whole sentences', () => {
  const wanting = elements().filter(
    ([, text]) => !text || !/^[A-Z`“"'\d].*\.$/s.test(text.trim()) || text !== text.trim(),
  );
  expect(wanting.map(([place, text]) => `${place}: ${text ?? '(none)'}`)).toEqual([]);
});

const mutations = Object.values(schema.getMutationType()?.getFields() ?? {});

test.each(mutations.map((field) => [field.name, field] as const))(
  'the mutation %s takes one input and answers a union of its success and errors',
  (name, field) => {
    expect(field.args.map((arg) => arg.name)).toEqual(['input']);
    expect(String(field.args[0]?.type)).toBe(`${capitalize(name)}Input!`);
    expect(isNonNullType(field.type)).toBe(false);
    const result = getNamedType(field.type);
    if (!isUnionType(result)) throw new Error(`${name} does not answer a union.`);
    expect(result.name).toBe(`${capitalize(name)}Result`);
    const [success, ...errors] = result
      .getTypes()
      .toSorted((a, b) => Number(b.name.endsWith('Success')) - Number(a.name.endsWith('Success')));
    expect(success?.name).toBe(`${capitalize(name)}Success`);
    expect(errors.length).toBeGreaterThan(0);
    for (const error of errors) expect(error.getInterfaces().map((each) => each.name)).toEqual(['Error']);
    const data = Object.values(success?.getFields() ?? {});
    expect(data).toHaveLength(1);
    const type = getNamedType(data[0]!.type).name;
    expect(data[0]?.name).toBe(type === 'ID' ? 'deletedId' : type.charAt(0).toLowerCase() + type.slice(1));
    expect(isNonNullType(data[0]?.type)).toBe(true);
  },
);

test('no two mutations share an input type, so that each can grow by itself', () => {
  const inputs = mutations.map((field) => getNamedType(field.args[0]!.type).name);
  expect(new Set(inputs).size).toBe(inputs.length);
});

test('types whose names end with Error are errors with a message, and no others are', () => {
  const implementations = schema.getPossibleTypes(named('Error') as never).map((type) => type.name);
  const byName = types.filter((type) => isObjectType(type) && type.name.endsWith('Error')).map((type) => type.name);
  expect(implementations.toSorted()).toEqual(byName.toSorted());
});

/** Unions whose success is not named after the field that answers it. */
const SUCCESSES: Record<string, string> = {
  CredentialResult: 'Credential',
  ProviderTokenResult: 'ProviderToken',
};

test('the members of every union are one success and errors', () => {
  for (const union of types.filter((type) => isUnionType(type))) {
    expect(union.name).toMatch(/Result$/);
    const successes = union.getTypes().filter((type) => !type.getInterfaces().some((each) => each.name === 'Error'));
    expect(successes.map((type) => type.name)).toEqual([
      SUCCESSES[union.name] ?? union.name.replace(/Result$/, 'Success'),
    ]);
  }
});

test('connections are named after what they list, and neither they nor their edges are ever null', () => {
  const connections = types
    .filter((type) => isObjectType(type))
    .filter((type) => type.name.endsWith('Connection') && 'edges' in type.getFields());
  expect(connections.length).toBeGreaterThan(4);
  for (const connection of connections) {
    const node = connection.name.replace(/Connection$/, '');
    const edge = named(`${node}Edge`);
    if (!isObjectType(edge)) throw new Error(`${edge.name} is not an object.`);
    expect(String(connection.getFields()['edges']?.type)).toBe(`[${node}Edge!]!`);
    expect(String(connection.getFields()['pageInfo']?.type)).toBe('PageInfo!');
    expect(String(edge.getFields()['node']?.type)).toBe(`${node}!`);
    expect(String(edge.getFields()['cursor']?.type)).toBe('String!');
  }
  for (const { field, place } of fields()) {
    if (!connections.includes(getNamedType(field.type) as never)) continue;
    expect([place, isNonNullType(field.type)]).toEqual([place, true]);
    const args = field.args.map((arg) => arg.name);
    expect([place, args]).toEqual([place, expect.arrayContaining(['first', 'after'])]);
  }
});

test('lists and their items are never null', () => {
  const lists = fields().flatMap(({ field, place }) => {
    const type = isNonNullType(field.type) ? field.type.ofType : field.type;
    return isListType(type) ? [{ place, type: String(field.type), wanted: `[${getNamedType(type).name}!]!` }] : [];
  });
  expect(lists.length).toBeGreaterThan(10);
  expect(lists.filter(({ type, wanted }) => type !== wanted)).toEqual([]);
});

test('no field answers unstructured JSON', () => {
  const scalars = types.filter((type) => isScalarType(type)).map((type) => type.name);
  expect(scalars.toSorted()).toEqual(['DateTime', 'Secret', 'URL']);
});

/** Fields that tell about a secret without being one; a new name here needs a second look. */
const ABOUT_SECRETS = new Set([
  'Credential.tokenType',
  'CredentialInfo.accessTokenExpiresAt',
  'CredentialInfo.refreshTokenExpiresAt',
  'Mutation.rotateWebhookEndpointSecret',
  'ProviderApp.clientSecretSetAt',
  'ProviderApp.webhookSecretSetAt',
  'Query.localRecordingToken',
  'Query.onBehalfOfToken',
  'Query.zakToken',
  'WebhookEndpoint.formerSecretRetiresAt',
  'WebhookEndpoint.secretSetAt',
]);

test('a field that holds a token, secret, code or key is a Secret, which nothing but the domain can make', () => {
  const suspicious = fields().filter(({ field }) =>
    /token|secret|password|verifier|connectcode|ciphertext|sealed/i.test(field.name),
  );
  const bare = suspicious.filter(
    ({ field, place }) => getNamedType(field.type).name !== 'Secret' && !ABOUT_SECRETS.has(place),
  );
  expect(bare.map(({ place }) => place)).toEqual([]);
  expect(suspicious.map(({ place }) => place)).toEqual(expect.arrayContaining([...ABOUT_SECRETS]));
});

test('a Secret is answered in few places only', () => {
  const secrets = fields().filter(({ field }) => getNamedType(field.type).name === 'Secret');
  expect(secrets.map(({ place }) => place).toSorted()).toEqual([
    'Credential.accessToken',
    'FrontendSession.token',
    'ProviderToken.token',
    'ServerKey.key',
    'SignedUrl.url',
    'WebhookEndpoint.secret',
  ]);
});

test('everything with an id of its own can be fetched again by it', () => {
  for (const type of types.filter((each) => isObjectType(each))) {
    const id = type.getFields()['id'];
    // What a session is, its holder asks as `viewer`; its token could not be shown again.
    if (id === undefined || type.name === 'FrontendSession') continue;
    expect([type.name, String(id.type)]).toEqual([type.name, 'ID!']);
    expect([type.name, type.getInterfaces().map((each) => each.name)]).toEqual([
      type.name,
      expect.arrayContaining(['Node']),
    ]);
  }
});

test('scalars of our own say where they are specified, as far as they are', () => {
  for (const type of types.filter((each) => isScalarType(each))) {
    expect([type.name, type.specifiedByURL ?? null]).toEqual([
      type.name,
      type.name === 'Secret' ? null : expect.stringMatching(/^https:/),
    ]);
  }
});

test('enum values and types are written in the usual case', () => {
  for (const type of types) {
    expect(type.name).toMatch(/^[A-Z][A-Za-z]+$/);
    if (isEnumType(type)) for (const value of type.getValues()) expect(value.name).toMatch(/^[A-Z]+(_[A-Z]+)*$/);
  }
  for (const { field } of fields()) expect(field.name).toMatch(/^[a-z][A-Za-z]*$/);
});
