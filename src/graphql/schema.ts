import './errors.js';
import './scope.js';
import './provider-app.js';
import './tenant.js';
import './installation.js';
import './user-connection.js';
import './authorization-session.js';
import './grant-import.js';
import './health-event.js';
import './deauthorization-receipt.js';
import './revocation.js';
import './tenant-deletion.js';
import './credential.js';
import './meeting.js';
import './provider-token.js';
import './signed-url.js';
import './viewer.js';
import './server-key.js';
import './frontend-session.js';
import './audit-event.js';
import './webhook-endpoint.js';
import { builder } from './builder.js';
import { audited, withRefusals } from './audited.js';
import { guard } from './guard.js';

/** The public schema, built once from the noun modules, with its audit trail around and its access rules before every resolver. */
export const schema = withRefusals(guard(audited(builder.toSchema())));
