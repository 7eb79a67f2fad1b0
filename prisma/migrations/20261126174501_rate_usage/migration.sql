-- CreateTable. Unlogged: counts are worth nothing after ten seconds, and writing them ahead would cost a sync each.
CREATE UNLOGGED TABLE "rate_usage" (
    "name" TEXT NOT NULL,
    "period" BIGINT NOT NULL,
    "used" INTEGER NOT NULL,

    CONSTRAINT "rate_usage_pkey" PRIMARY KEY ("name","period")
);
