import { readFile } from 'node:fs/promises';
import { usePersistedOperations } from '@graphql-yoga/plugin-persisted-operations';
import { GraphQLError } from 'graphql';
import type { Plugin } from 'graphql-yoga';
import { z } from 'zod';
import { ConfigError } from '../config.js';
import type { Principal } from '../domain/principal.js';
import type { Context } from '../graphql/context.js';
import { BAD_REQUEST } from './mask.js';

const PREFIX = 'sha256:';
const Manifest = z.record(z.string().min(1), z.string().min(1));

/** What of a request may name a document instead of holding it. */
interface Naming {
  documentId?: unknown;
  extensions?: unknown;
}

/** The documents that frontends may have executed. */
export interface PersistedDocuments {
  /** @returns the text of the document that a request names; null where it names none. @throws for an unknown name. */
  textOf(naming: Naming): string | null;
  /** @returns the error that refuses a text of its own to a browser; null where it may be parsed. */
  refuse(text: string, principal: Principal): GraphQLError | null;
}

const withoutPrefix = (hash: string): string => (hash.startsWith(PREFIX) ? hash.slice(PREFIX.length) : hash);

/** The name of a document, as `documentId` or in the form that most clients have for persisted queries. */
function nameOf({ documentId, extensions }: Naming): string | null {
  const persisted = (extensions as { persistedQuery?: { sha256Hash?: unknown } | null } | null | undefined)
    ?.persistedQuery;
  const name = documentId ?? persisted?.sha256Hash;
  return typeof name === 'string' ? withoutPrefix(name) : null;
}

const unknownDocument = () =>
  new GraphQLError('No document of this name is registered.', {
    extensions: { code: 'PERSISTED_DOCUMENT_NOT_FOUND', http: BAD_REQUEST },
  });

export function createPersistedDocuments(manifest: Readonly<Record<string, string>>): PersistedDocuments {
  const texts = new Map(Object.entries(manifest).map(([hash, text]) => [withoutPrefix(hash), text]));
  const registered = new Set(texts.values());
  return {
    textOf: (naming) => {
      const name = nameOf(naming);
      if (name === null) return null;
      const text = texts.get(name);
      if (text === undefined) throw unknownDocument();
      return text;
    },
    refuse: (text, { kind }) => {
      if (kind === 'SERVER_KEY' || registered.has(text)) return null;
      return new GraphQLError('A frontend session may have registered documents executed, and no others.', {
        extensions: { code: 'PERSISTED_DOCUMENT_REQUIRED', http: BAD_REQUEST },
      });
    },
  };
}

/**
 * Reads a manifest as code generation writes it: an object of document texts by their hashes.
 *
 * @throws {ConfigError} there is no such file, or it is no manifest.
 */
export async function readPersistedDocuments(file: string): Promise<PersistedDocuments> {
  try {
    return createPersistedDocuments(Manifest.parse(JSON.parse(await readFile(file, 'utf8'))));
  } catch {
    throw new ConfigError([`LATCHKEY_PERSISTED_DOCUMENTS must name a JSON file of documents by their hashes: ${file}`]);
  }
}

/** Puts the text in the place of a name over HTTP, and refuses other texts before they are parsed, on every way. */
export function createPersistedDocumentsPlugin(documents: PersistedDocuments): Plugin<Context> {
  const { onParams } = usePersistedOperations<object>({
    allowArbitraryOperations: true,
    extractPersistedOperationId: (params) => nameOf(params),
    getPersistedOperation: (name) => documents.textOf({ documentId: name }),
  });
  return {
    onParams: (payload) => {
      // Without either, the engine says that there is no query.
      if (!payload.params.query && nameOf(payload.params) !== null) return onParams?.(payload as never);
      return undefined;
    },
    onParse: ({ params: { source }, context }) => {
      const refused = documents.refuse(typeof source === 'string' ? source : source.body, context.principal);
      if (refused !== null) throw refused;
    },
  };
}
