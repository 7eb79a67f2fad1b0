-- AlterEnum
ALTER TYPE "AuditPrincipalKind" ADD VALUE 'BROWSER';
ALTER TYPE "AuditPrincipalKind" ADD VALUE 'OPERATOR';
