import type { Config } from './config.js';
import type { Database } from './database/database.js';
import { openEmbedded } from './database/embedded.js';
import { openPostgres } from './database/postgres.js';
import type { Log } from './log.js';

/** Opens the database that the settings name. */
export const openDatabase = (config: Config, log: Log): Promise<Database> =>
  config.databaseUrl === null
    ? openEmbedded(config.dataDir)
    : openPostgres({
        connectionString: config.databaseUrl,
        migrationUrl: config.migrationDatabaseUrl,
        preparedStatements: config.preparedStatements,
        log,
        poolSize: config.databasePoolSize,
        queryTimeoutMs: config.databaseTimeoutMs,
        rowLevelSecurity: config.rowLevelSecurity,
      });
