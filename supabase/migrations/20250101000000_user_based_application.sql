-- Purpose: the call-centre application as it was, its rows kept by user_id. It stands in for your application's own migrations.
-- Touches: 54 new tables in public with their functions, triggers and policies; nothing at all where public holds a table already.
-- Locks:   none that anyone waits for: every table is new.
-- Undo:    none; on your application put its own migrations here (supabase db pull) and delete this file.

do $application$
declare
    application_table regclass;
begin
    if exists (
        select
        from pg_catalog.pg_class as relation
        where relation.relnamespace = 'public'::regnamespace
            and relation.relkind in ('r', 'p', 'f')
    ) then
        return;
    end if;

    -- Reference data and what belongs to one person ------------------------------------------------------------------

    create table public.profiles (
        id uuid primary key references auth.users (id) on delete cascade,
        tenant_id uuid,
        full_name text,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.user_profiles (
        user_id uuid primary key references auth.users (id) on delete cascade,
        company_name text,
        timezone text not null default 'UTC',
        preferences jsonb not null default '{}',
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.user_credits (
        user_id uuid primary key references auth.users (id) on delete cascade,
        balance numeric(12, 2) not null default 0,
        updated_at timestamptz not null default now()
    );

    create table public.billing_plans (
        id uuid primary key default gen_random_uuid(),
        code text not null unique,
        name text not null,
        monthly_price numeric(10, 2) not null default 0,
        included_minutes integer not null default 0
    );

    create table public.user_subscriptions (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null references auth.users (id) on delete cascade,
        billing_plan_id uuid not null references public.billing_plans (id),
        status text not null default 'active' check (status in ('trialing', 'active', 'past_due', 'canceled')),
        current_period_end timestamptz
    );

    create table public.customers (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null references auth.users (id) on delete cascade,
        stripe_customer_id text not null unique,
        created_at timestamptz not null default now()
    );

    create table public.pricing_tiers (
        id uuid primary key default gen_random_uuid(),
        billing_plan_id uuid not null references public.billing_plans (id) on delete cascade,
        from_minutes integer not null default 0,
        price_per_minute numeric(10, 4) not null default 0
    );

    create table public.voice_options (
        id uuid primary key default gen_random_uuid(),
        provider text not null,
        voice_name text not null,
        language_code text not null default 'en-US'
    );

    create table public.campaign_templates (
        id uuid primary key default gen_random_uuid(),
        title text not null,
        script text not null,
        settings jsonb not null default '{}'
    );

    -- Campaigns, agents and telephony --------------------------------------------------------------------------------

    create table public.agents (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null references auth.users (id) on delete cascade,
        voice_option_id uuid references public.voice_options (id),
        name text not null,
        system_prompt text,
        is_active boolean not null default true,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.agent_configurations (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        agent_id uuid not null references public.agents (id) on delete cascade,
        temperature numeric(3, 2) not null default 0.70,
        settings jsonb not null default '{}',
        updated_at timestamptz not null default now()
    );

    create table public.campaigns (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        agent_id uuid references public.agents (id) on delete set null,
        cloned_from_id uuid references public.campaigns (id) on delete set null,
        name text not null,
        status text not null default 'draft' check (status in ('draft', 'running', 'paused', 'completed')),
        starts_at timestamptz,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.campaign_metrics (
        campaign_id uuid not null references public.campaigns (id) on delete cascade,
        metric_date date not null,
        dials integer not null default 0,
        connects integer not null default 0,
        talk_seconds bigint not null default 0,
        primary key (campaign_id, metric_date)
    );

    create table public.user_phone_numbers (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        phone_number text not null unique,
        provider_sid text,
        released_at timestamptz,
        created_at timestamptz not null default now()
    );

    create table public.campaign_phone_numbers (
        campaign_id uuid not null references public.campaigns (id) on delete cascade,
        user_phone_number_id uuid not null references public.user_phone_numbers (id) on delete cascade,
        user_id uuid not null,
        added_at timestamptz not null default now(),
        primary key (campaign_id, user_phone_number_id)
    );

    create table public.phone_assistants (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null references auth.users (id) on delete cascade,
        agent_id uuid references public.agents (id) on delete set null,
        phone_number text not null,
        greeting text,
        updated_at timestamptz not null default now()
    );

    create table public.user_twilio_subaccounts (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null unique,
        account_sid text not null unique,
        suspended_at timestamptz
    );

    create table public.customer_twilio_keys (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        key_sid text not null,
        vault_secret_id uuid,
        rotated_at timestamptz
    );

    create table public.phone_blacklist (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        phone_number text not null,
        reason text,
        created_at timestamptz not null default now(),
        unique (user_id, phone_number)
    );

    create table public.dnc_list (
        id bigint generated always as identity primary key,
        user_id uuid not null,
        phone_number text not null,
        source text not null default 'manual',
        created_at timestamptz not null default now()
    );

    create table public.telephony_audit_log (
        id bigint generated always as identity primary key,
        user_id uuid,
        event text not null,
        payload jsonb not null default '{}',
        occurred_at timestamptz not null default now()
    );

    -- Leads, contacts and lists --------------------------------------------------------------------------------------

    create table public.imports (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        file_name text not null,
        row_count integer not null default 0,
        status text not null default 'pending' check (status in ('pending', 'running', 'done', 'failed')),
        created_at timestamptz not null default now()
    );

    create table public.leads (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        campaign_id uuid references public.campaigns (id) on delete set null,
        import_id uuid references public.imports (id) on delete set null,
        full_name text not null,
        phone_number text not null,
        email text,
        status text not null default 'new' check (status in ('new', 'contacted', 'qualified', 'lost')),
        tags text[] not null default '{}',
        custom_fields jsonb not null default '{}',
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.contacts (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        lead_id uuid references public.leads (id) on delete set null,
        merged_into_id uuid references public.contacts (id) on delete set null,
        full_name text not null,
        phone_number text,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.call_lists (
        id uuid primary key default gen_random_uuid(),
        user_id uuid,
        campaign_id uuid references public.campaigns (id) on delete cascade,
        name text not null,
        created_at timestamptz not null default now()
    );

    create table public.daily_lead_uploads (
        user_id uuid not null,
        upload_date date not null,
        upload_count integer not null default 0,
        primary key (user_id, upload_date)
    );

    create table public.outreach_templates (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        channel text not null default 'email' check (channel in ('email', 'sms', 'voice')),
        subject text,
        body text not null,
        updated_at timestamptz not null default now()
    );

    create table public.consent_records (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        lead_id uuid references public.leads (id) on delete cascade,
        phone_number text not null,
        granted_at timestamptz not null default now(),
        revoked_at timestamptz
    );

    create table public.compliance_audit_logs (
        id uuid primary key default gen_random_uuid(),
        user_id uuid,
        action text not null,
        table_name text not null,
        row_id text,
        occurred_at timestamptz not null default now()
    );

    -- Calls and what hangs from them ---------------------------------------------------------------------------------

    create table public.calls (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        agent_id uuid references public.agents (id) on delete set null,
        lead_id uuid references public.leads (id) on delete set null,
        direction text not null default 'outbound' check (direction in ('inbound', 'outbound')),
        status text not null default 'queued' check (status in ('queued', 'ringing', 'in_progress', 'completed', 'failed')),
        duration_seconds integer,
        started_at timestamptz,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.call_logs (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        call_id uuid references public.calls (id) on delete set null,
        phone_number text not null,
        outcome text,
        notes text,
        created_at timestamptz not null default now()
    );

    create table public.call_tracking (
        id uuid primary key default gen_random_uuid(),
        call_id uuid not null references public.calls (id) on delete cascade,
        provider text not null default 'twilio',
        provider_sid text,
        event text not null,
        payload jsonb not null default '{}',
        occurred_at timestamptz not null default now()
    );

    create table public.hallucination_flags (
        id uuid primary key default gen_random_uuid(),
        call_tracking_id uuid not null references public.call_tracking (id) on delete cascade,
        excerpt text not null,
        severity smallint not null default 1,
        reviewed_at timestamptz
    );

    create table public.recording_upload_queue (
        id bigint generated always as identity primary key,
        call_log_id uuid not null references public.call_logs (id) on delete cascade,
        storage_path text not null,
        attempts smallint not null default 0,
        next_attempt_at timestamptz not null default now()
    );

    create table public.cold_call_logs (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        lead_id uuid references public.leads (id) on delete set null,
        disposition text,
        called_at timestamptz not null default now()
    );

    create table public.user_active_calls (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        call_id uuid references public.calls (id) on delete cascade,
        heartbeat_at timestamptz not null default now()
    );

    create table public.sentiment_analysis (
        id uuid primary key default gen_random_uuid(),
        user_id uuid,
        call_id uuid references public.calls (id) on delete cascade,
        score numeric(4, 3) not null default 0,
        analyzed_at timestamptz not null default now()
    );

    -- Knowledge base -------------------------------------------------------------------------------------------------

    create table public.integrations (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null references auth.users (id) on delete cascade,
        provider text not null,
        settings jsonb not null default '{}',
        connected_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.knowledge_base (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        name text not null,
        description text,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    );

    create table public.knowledge_base_changelog (
        id bigint generated always as identity primary key,
        knowledge_base_id uuid not null references public.knowledge_base (id) on delete cascade,
        change_type text not null,
        before_value jsonb,
        after_value jsonb,
        changed_at timestamptz not null default now()
    );

    create table public.kb_sync_log (
        id bigint generated always as identity primary key,
        knowledge_base_id uuid not null references public.knowledge_base (id) on delete cascade,
        integration_id uuid references public.integrations (id) on delete set null,
        documents_synced integer not null default 0,
        finished_at timestamptz
    );

    create table public.knowledge_base_documents (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        knowledge_base_id uuid references public.knowledge_base (id) on delete cascade,
        title text not null,
        storage_path text,
        updated_at timestamptz not null default now()
    );

    create table public.knowledge_base_chunks (
        id uuid primary key default gen_random_uuid(),
        user_id uuid,
        document_id uuid not null references public.knowledge_base_documents (id) on delete cascade,
        chunk_index integer not null default 0,
        content text not null
    );

    create table public.embeddings (
        id uuid primary key default gen_random_uuid(),
        user_id uuid,
        chunk_id uuid references public.knowledge_base_chunks (id) on delete cascade,
        model text not null default 'text-embedding-3-small',
        embedding real[] not null default '{}'
    );

    -- Notifications, onboarding, usage and money ---------------------------------------------------------------------

    create table public.notification_templates (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        channel text not null default 'email',
        body text not null,
        updated_at timestamptz not null default now()
    );

    create table public.notification_history (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        template_id uuid references public.notification_templates (id) on delete set null,
        recipient text not null,
        sent_at timestamptz not null default now()
    );

    create table public.notification_rate_limits (
        user_id uuid not null,
        channel text not null default 'email',
        window_started_at timestamptz not null default now(),
        sent_count integer not null default 0
    );

    create table public.onboarding_events (
        id bigint generated always as identity primary key,
        user_id uuid not null,
        step text not null,
        occurred_at timestamptz not null default now()
    );

    create table public.usage_events (
        id bigint generated always as identity primary key,
        user_id uuid not null,
        event_type text not null,
        quantity numeric(14, 4) not null default 0,
        occurred_at timestamptz not null default now()
    );

    create table public.usage_records (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        period_start date not null,
        minutes_used numeric(12, 2) not null default 0,
        unique (user_id, period_start)
    );

    create table public.billing_cycles (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        starts_on date not null,
        ends_on date,
        closed_at timestamptz
    );

    create table public.payments (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        customer_id uuid references public.customers (id),
        billing_cycle_id uuid references public.billing_cycles (id),
        amount numeric(12, 2) not null default 0,
        currency text not null default 'usd',
        paid_at timestamptz
    );

    create table public.payment_events_log (
        id bigint generated always as identity primary key,
        user_id uuid,
        payment_id uuid references public.payments (id),
        event_type text not null,
        payload jsonb not null default '{}',
        received_at timestamptz not null default now()
    );

    create table public.credit_transactions (
        id uuid primary key default gen_random_uuid(),
        user_id uuid not null,
        payment_id uuid references public.payments (id),
        amount numeric(12, 2) not null default 0,
        description text,
        created_at timestamptz not null default now()
    );

    -- Indexes of the application's own queries -----------------------------------------------------------------------

    create index calls_user_id_created_at_idx on public.calls (user_id, created_at desc);
    create index call_logs_user_id_created_at_idx on public.call_logs (user_id, created_at desc);
    create index call_logs_call_id_idx on public.call_logs (call_id);
    create index call_tracking_call_id_idx on public.call_tracking (call_id);
    create index hallucination_flags_call_tracking_id_idx on public.hallucination_flags (call_tracking_id);
    create index recording_upload_queue_call_log_id_idx on public.recording_upload_queue (call_log_id);
    create index leads_user_id_status_idx on public.leads (user_id, status);
    create index leads_campaign_id_idx on public.leads (campaign_id);
    create index contacts_user_id_idx on public.contacts (user_id);
    create index knowledge_base_documents_knowledge_base_id_idx on public.knowledge_base_documents (knowledge_base_id);
    create index knowledge_base_chunks_document_id_idx on public.knowledge_base_chunks (document_id);
    create index usage_events_user_id_occurred_at_idx on public.usage_events (user_id, occurred_at);

    -- Triggers: every updated_at is kept by one function, every change of a lead is on record ------------------------

    create function public.set_updated_at()
    returns trigger
    language plpgsql
    set search_path = ''
    as $function$
    begin
        new.updated_at := clock_timestamp();
        return new;
    end
    $function$;

    for application_table in
        select updated.attrelid
        from pg_catalog.pg_attribute as updated
        join pg_catalog.pg_class as relation
            on relation.oid = updated.attrelid
        where relation.relnamespace = 'public'::regnamespace
            and relation.relkind = 'r'
            and updated.attname = 'updated_at'
    loop
        execute format(
            'create trigger set_updated_at before update on %s for each row execute function public.set_updated_at()',
            application_table
        );
    end loop;

    -- The application already expects org_id: the record carries the lead's from the moment both tables have the column.
    -- Of one that goes with its whole organization there is none to keep. Security definer, since nobody writes the record by hand.
    create function public.log_lead_change()
    returns trigger
    language plpgsql
    security definer
    set search_path = ''
    as $function$
    begin
        if tg_op <> 'INSERT' and to_jsonb(old) ? 'org_id' then
            if not exists (select from public.organizations where organizations.id = (to_jsonb(old) ->> 'org_id')::uuid) then
                return null;
            end if;
        end if;
        insert into public.compliance_audit_logs
        select entry.*
        from jsonb_populate_record(
            null::public.compliance_audit_logs,
            to_jsonb(coalesce(new, old)) || jsonb_build_object(
                'id', gen_random_uuid(),
                'action', lower(tg_op),
                'table_name', tg_table_name,
                'row_id', coalesce(new.id, old.id),
                'occurred_at', clock_timestamp()
            )
        ) as entry;
        return null;
    end
    $function$;

    revoke execute on function public.set_updated_at(), public.log_lead_change() from public, anon, authenticated;

    create trigger log_lead_change
    after insert or update or delete on public.leads
    for each row
    execute function public.log_lead_change();

    -- Access: the backend works as service_role; people reach what their screens show, each their own rows -----------

    for application_table in
        select relation.oid
        from pg_catalog.pg_class as relation
        where relation.relnamespace = 'public'::regnamespace
            and relation.relkind = 'r'
            and relation.relname not in ('credit_transactions', 'payment_events_log', 'user_twilio_subaccounts')
    loop
        execute format('alter table %s enable row level security', application_table);
        execute format('grant select, insert, update, delete on %s to authenticated, service_role', application_table);
    end loop;

    revoke all on public.credit_transactions, public.payment_events_log, public.user_twilio_subaccounts
    from anon, authenticated;
    grant select, insert, update, delete on public.credit_transactions, public.payment_events_log,
        public.user_twilio_subaccounts
    to service_role;

    for application_table in
        select unnest(array[
            'public.agents',
            'public.calls',
            'public.call_logs',
            'public.campaigns',
            'public.contacts',
            'public.integrations',
            'public.knowledge_base',
            'public.leads',
            'public.outreach_templates',
            'public.phone_blacklist'
        ]::regclass[])
    loop
        execute format(
            $ddl$
                create policy "own rows" on %s
                to authenticated
                using (user_id = (select auth.uid()))
                with check (user_id = (select auth.uid()))
            $ddl$,
            application_table
        );
    end loop;

    create policy "tracking of own calls" on public.call_tracking
    to authenticated
    using (exists (select from public.calls where calls.id = call_id and calls.user_id = (select auth.uid())));

    create policy "anyone signed in reads the plans" on public.billing_plans
    for select
    to authenticated
    using (true);
end
$application$;
