import { expect } from 'vitest';
import type { Answer, TestServer } from './server.js';

type Server = Pick<TestServer, 'data' | 'graphql'>;

/** A caller other than the admin key. */
export interface Caller {
  /** By which it is revoked. */
  id: string;
  /** The key or the session's token. */
  token: string;
  headers: Record<string, string>;
  graphql(query: string, variables?: Record<string, unknown>): Promise<Answer>;
  /** The data of an operation; fails the test on errors. */
  data(query: string, variables?: Record<string, unknown>): Promise<any>;
}

/** Sends with another token than the admin key's, and from a page of `origin` where one is given. */
export function callerOf(server: Server, id: string, token: string, origin: string | null = null): Caller {
  const headers = { authorization: `Bearer ${token}`, ...(origin === null ? {} : { origin }) };
  const graphql: Caller['graphql'] = (query, variables) => server.graphql(query, variables, headers);
  return {
    id,
    token,
    headers,
    graphql,
    data: async (query, variables) => {
      const { data, errors } = await graphql(query, variables);
      expect(errors).toBeUndefined();
      return data;
    },
  };
}

export const CREATE_SERVER_KEY = `mutation ($input: CreateServerKeyInput!) {
  createServerKey(input: $input) {
    __typename
    ... on CreateServerKeySuccess { serverKey { id name permissions key tenant { externalId } lastUsedAt expiresAt } }
    ... on InvalidInputError { path }
    ... on Error { message }
  }
}`;

export async function createServerKey(server: Server, input: Record<string, unknown>): Promise<Caller> {
  const { createServerKey: made } = await server.data(CREATE_SERVER_KEY, { input: { name: 'test', ...input } });
  if (made.serverKey === undefined) throw new Error(`No key: ${made.message}`);
  return callerOf(server, made.serverKey.id, made.serverKey.key);
}

export const CREATE_FRONTEND_SESSION = `mutation ($input: CreateFrontendSessionInput!) {
  createFrontendSession(input: $input) {
    __typename
    ... on CreateFrontendSessionSuccess { frontendSession { id token expiresAt } }
    ... on InvalidInputError { path }
    ... on Error { message }
  }
}`;

/** @param origin of the page that holds it: one that the tenant allows, or null where it allows none. */
export async function createFrontendSession(
  server: Server,
  input: { tenantId: string; allow: readonly string[] } & Record<string, unknown>,
  origin: string | null,
): Promise<Caller> {
  const { createFrontendSession: made } = await server.data(CREATE_FRONTEND_SESSION, { input });
  if (made.frontendSession === undefined) throw new Error(`No session: ${made.message}`);
  return callerOf(server, made.frontendSession.id, made.frontendSession.token, origin);
}

const revoke = (name: 'ServerKey' | 'FrontendSession') => `mutation ($id: ID!) {
  revoke${name}(input: { id: $id }) { __typename ... on Revoke${name}Success { deletedId } ... on Error { message } }
}`;

export const revokeServerKey = async (server: Pick<Server, 'data'>, id: string) =>
  (await server.data(revoke('ServerKey'), { id })).revokeServerKey;

export const revokeFrontendSession = async (server: Pick<Server, 'data'>, id: string) =>
  (await server.data(revoke('FrontendSession'), { id })).revokeFrontendSession;

/** The code of an answer's first error. */
export const codeOf = ({ errors }: Answer): string | undefined => errors?.[0]?.extensions.code;
