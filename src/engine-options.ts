import type { Config } from './config.js';
import type { EngineOptions } from './http/engine.js';
import { readPersistedDocuments } from './http/persisted-documents.js';

/**
 * What the settings say of GraphQL.
 *
 * @throws {ConfigError} the manifest of documents cannot be read.
 */
export const readEngineOptions = async (config: Config): Promise<EngineOptions> => ({
  development: !config.production,
  maxCost: config.maxCost,
  deadline: {
    requestMs: config.requestDeadlineSeconds * 1_000,
    providerMs: config.providerDeadlineSeconds * 1_000,
  },
  streams: config.maxStreams,
  persistedDocuments:
    config.persistedDocumentsFile === null ? null : await readPersistedDocuments(config.persistedDocumentsFile),
});
