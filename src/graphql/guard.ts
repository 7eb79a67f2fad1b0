import {
  getNamedType,
  GraphQLError,
  type GraphQLField,
  type GraphQLObjectType,
  type GraphQLSchema,
  isInterfaceType,
  isIntrospectionType,
  isObjectType,
} from 'graphql';
import type { Permission, Principal } from '../domain/principal.js';
import { ACCESS, type Access, NODE_ACCESS, PART } from './access.js';
import { decodeGlobalId } from './builder.js';
import type { Context } from './context.js';

/** What belongs to the field that answers it. */
const isPartByName = (typename: string): boolean => /(Connection|Edge|Success|Error)$/.test(typename);

/** The rule of a field; undefined where nobody has made one. */
export function accessOf(typename: string, fieldName: string): Access | undefined {
  const entry = ACCESS[typename];
  if (entry === undefined) return isPartByName(typename) ? PART : undefined;
  return entry === PART ? PART : entry[fieldName];
}

/** Whether a rule lets a principal ask. What is decided by the type of a thing is not decided here. */
export function isAllowed(access: Access, principal: Principal): boolean {
  if (typeof access === 'string') return true;
  if (principal.kind === 'FRONTEND_SESSION') return principal.actions.some((action) => access.actions.includes(action));
  if (access.global === true && principal.tenantId !== null) return false;
  const has = (permission: Permission) => principal.permissions.includes(permission);
  return access.all === true ? access.permissions.every(has) : access.permissions.some(has);
}

export const forbidden = () =>
  new GraphQLError('The key or session may not do this.', { extensions: { code: 'FORBIDDEN' } });

/** @throws FORBIDDEN, whether or not there is such a thing. */
function checkNode(globalId: unknown, principal: Principal): void {
  const access = NODE_ACCESS[decodeGlobalId(String(globalId)).typename];
  if (access !== undefined && !isAllowed(access, principal)) throw forbidden();
}

type Field = GraphQLField<unknown, Context>;
type Check = (principal: Principal, args: Record<string, unknown>) => void;

function checkOf(access: Access, field: Field): Check | null {
  const isSecret = getNamedType(field.type).name === 'Secret';
  if (access === 'BY_TYPE') return (principal, args) => checkNode(args['id'], principal);
  if (typeof access === 'string' && !isSecret) return null;
  return (principal) => {
    if (!isAllowed(access, principal)) throw forbidden();
    if (isSecret && principal.kind !== 'SERVER_KEY') throw forbidden();
  };
}

function guardField(field: Field, check: Check): void {
  const { resolve, subscribe } = field;
  if (resolve === undefined) throw new Error(`The field ${field.name} has no resolver.`);
  field.resolve = (parent, args, ctx, info) => {
    if (ctx.deadline?.isOver === true) throw new Error('The time of the operation is over.');
    check(ctx.principal, args as Record<string, unknown>);
    return resolve(parent, args, ctx, info) as unknown;
  };
  if (subscribe === undefined) return;
  field.subscribe = (parent, args, ctx, info) => {
    check(ctx.principal, args as Record<string, unknown>);
    return subscribe(parent, args, ctx, info) as unknown;
  };
}

const objectTypes = (schema: GraphQLSchema): GraphQLObjectType<unknown, Context>[] =>
  Object.values(schema.getTypeMap()).filter((type) => isObjectType(type) && !isIntrospectionType(type)) as never;

/** The fields and node types that nobody has made a rule for. */
export function fieldsWithoutRule(schema: GraphQLSchema): string[] {
  const types = Object.values(schema.getTypeMap()).filter((type) => !isIntrospectionType(type));
  return types.flatMap((type) => {
    if (!isObjectType(type) && !isInterfaceType(type)) return [];
    const isNode = isObjectType(type) && type.getInterfaces().some(({ name }) => name === 'Node');
    const fields = Object.keys(type.getFields()).filter((name) => accessOf(type.name, name) === undefined);
    return [
      ...fields.map((name) => `${type.name}.${name}`),
      ...(isNode && NODE_ACCESS[type.name] === undefined ? [`node(id) for ${type.name}`] : []),
    ];
  });
}

/**
 * Puts the rules of `ACCESS` before every resolver. Subscriptions are checked when they begin and at each event. A
 * field that answers a Secret answers it to server keys only, whatever its rule.
 *
 * @throws where a field has no rule: what nobody has thought about is not served.
 */
export function guard(schema: GraphQLSchema): GraphQLSchema {
  const without = fieldsWithoutRule(schema);
  if (without.length > 0) throw new Error(`No access rule for ${without.join(', ')}.`);
  for (const type of objectTypes(schema)) {
    for (const field of Object.values(type.getFields())) {
      const access = accessOf(type.name, field.name);
      const check = access === undefined ? null : checkOf(access, field);
      if (check !== null) guardField(field, check);
    }
  }
  return schema;
}
