import { Provider as ProviderValues } from '../generated/prisma/enums.js';
import { builder } from './builder.js';
import { described } from './health.js';

export const Provider = builder.enumType('Provider', {
  description: 'Who grants access.',
  values: described(ProviderValues, { ZOOM: 'Zoom.' }),
});
