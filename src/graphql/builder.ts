import SchemaBuilder from '@pothos/core';
import ComplexityPlugin from '@pothos/plugin-complexity';
import ErrorsPlugin from '@pothos/plugin-errors';
import PrismaPlugin from '@pothos/plugin-prisma';
import RelayPlugin from '@pothos/plugin-relay';
import type { GraphQLField } from 'graphql';
import { encodeGlobalId } from '../domain/global-id.js';
import type PrismaTypes from '../generated/pothos-types.js';
import { getDatamodel } from '../generated/pothos-types.js';
import type { Secret } from '../secret.js';
import type { Context } from './context.js';
import { costOfField } from './field-cost.js';
import { isKnownNode } from './node.js';
import { DEFAULT_PAGE, MAX_PAGE } from './page.js';
import { dateTime, secret, url } from './scalars.js';

export { encodeGlobalId };

const capitalize = (name: string) => name.charAt(0).toUpperCase() + name.slice(1);

/** Prisma's code for a row that is not there. */
const ROW_NOT_FOUND = 'P2025';

/** Splits a global id; what is none is answered like an id that nothing has. */
export function decodeGlobalId(globalId: string): { typename: string; id: string } {
  const [, typename = '', id = ''] =
    /^([A-Za-z]+):(.+)$/s.exec(Buffer.from(globalId, 'base64url').toString('utf8')) ?? [];
  return { typename, id };
}

/** The one schema builder. Fields are non-null unless they say otherwise; results of mutations are unions. */
export const builder = new SchemaBuilder<{
  Context: Context;
  PrismaTypes: PrismaTypes;
  DefaultFieldNullability: false;
  DefaultEdgesNullability: false;
  DefaultNodeNullability: false;
  Connection: { totalCount?: number | (() => number | Promise<number>) | undefined };
  Scalars: {
    ID: { Input: string; Output: string | number };
    DateTime: { Input: Date; Output: Date };
    URL: { Input: string; Output: string };
    Secret: { Input: never; Output: Secret };
  };
}>({
  defaultFieldNullability: false,
  // The errors plugin wraps the resolvers that the others make.
  plugins: [ErrorsPlugin, RelayPlugin, PrismaPlugin, ComplexityPlugin],
  complexity: {
    // Costs are reckoned before anything is executed (http/operation-cost.ts), not in each resolver.
    disabled: true,
    fieldComplexity: (args, _ctx, field) => costOfField(args, field as GraphQLField<unknown, unknown>),
  },
  prisma: {
    client: (ctx) => ctx.prisma,
    dmmf: getDatamodel(),
    filterConnectionTotalCount: true,
    maxConnectionSize: MAX_PAGE,
    defaultConnectionSize: DEFAULT_PAGE,
  },
  relay: {
    cursorType: 'String',
    encodeGlobalID: encodeGlobalId,
    decodeGlobalID: decodeGlobalId,
    idFieldOptions: { description: 'Identifies this thing among all things of this API.' },
    edgesFieldOptions: { nullable: false, description: 'The items of this page, each with its cursor.' },
    nodeFieldOptions: { nullable: false, description: 'The item.' },
    cursorFieldOptions: { description: 'Pass as `after` to go on behind this item.' },
    pageInfoFieldOptions: { description: 'Where this page stands in the whole list.' },
    pageInfoTypeOptions: { description: 'Where a page stands in the whole list.' },
    hasNextPageFieldOptions: { description: 'Whether more items follow this page.' },
    hasPreviousPageFieldOptions: { description: 'Whether items precede this page.' },
    startCursorFieldOptions: { description: 'The cursor of the first item; null on an empty page.' },
    endCursorFieldOptions: { description: 'The cursor of the last item; null on an empty page.' },
    firstArgOptions: {
      description: `How many items at most, from the front: ${DEFAULT_PAGE} unless told, up to ${MAX_PAGE}.`,
    },
    afterArgOptions: { description: 'Only items behind this cursor.' },
    lastArgOptions: { description: `How many items at most, from the back: up to ${MAX_PAGE}.` },
    beforeArgOptions: { description: 'Only items before this cursor.' },
    nodeTypeOptions: { description: 'Something with an identifier by which it can be fetched again.' },
    nodeQueryOptions: {
      nullable: true,
      description: 'Whatever has this id; null where nothing has, or nothing the caller may see.',
      args: { id: { description: 'As any `id` field gave it.' } },
      resolve: async (_root, { id }, _ctx, _info, resolveNode) => {
        if (!isKnownNode(id.typename, id.id)) return null;
        try {
          return await resolveNode(id);
        } catch (error) {
          if ((error as { code?: unknown }).code === ROW_NOT_FOUND) return null;
          throw error;
        }
      },
    },
    nodesQueryOptions: false,
    defaultConnectionTypeOptions: { description: 'One page of a list.' },
    defaultEdgeTypeOptions: { description: 'One item of a list, with its place in it.' },
  },
  errors: {
    defaultTypes: [],
    directResult: false,
    defaultUnionOptions: { name: ({ fieldName }) => `${capitalize(fieldName)}Result` },
    defaultResultOptions: { name: ({ fieldName }) => `${capitalize(fieldName)}Success` },
  },
});

builder.queryType({ description: 'Everything that can be read once.' });
builder.mutationType({
  description: 'Everything that changes something. Each answers a union: always select `... on Error { message }`.',
});
builder.subscriptionType({
  description: 'Everything that is told as it happens, over server-sent events or WebSocket.',
});

builder.scalarType('DateTime', dateTime);
builder.scalarType('URL', url);
builder.scalarType('Secret', secret);
