-- Purpose: phase 1: the list of tables, the one place to edit for another application, and the check that no table is missing from it.
--          A row per table; the last value says which columns decide its rows, in order, as '{user_id,lead_id}'; null: as detected.
-- Touches: rows of tenancy.registry, and the default organization. If the check fails, none: correct the list and push again.
-- Locks:   none that anyone waits for.
-- Undo:    delete from tenancy.registry; after tenancy.roll_back, never before it.

set search_path = '';
set lock_timeout = '1s';
set statement_timeout = '1min';

-- Tables that were renamed since, if this is not the first time.
select tenancy.note_tables();
select org_migration.create_default_organization();

insert into tenancy.registry (schema_name, table_name, scope, priority, reason, org_from)
values
    ('public', 'call_logs', 'org', 'critical', null, null),
    ('public', 'call_tracking', 'org', 'critical', null, null),
    ('public', 'calls', 'org', 'critical', null, null),
    ('public', 'leads', 'org', 'critical', null, null),
    ('public', 'agents', 'org', 'critical', null, null),
    ('public', 'knowledge_base', 'org', 'critical', null, null),
    ('public', 'knowledge_base_changelog', 'org', 'critical', null, null),
    ('public', 'integrations', 'org', 'critical', null, null),
    ('public', 'recording_upload_queue', 'org', 'critical', null, null),
    ('public', 'imports', 'org', 'critical', null, null),
    ('public', 'outreach_templates', 'org', 'critical', null, null),
    ('public', 'campaign_metrics', 'org', 'critical', null, null),
    ('public', 'phone_blacklist', 'org', 'critical', null, null),
    ('public', 'hallucination_flags', 'org', 'critical', null, null),
    ('public', 'kb_sync_log', 'org', 'critical', null, null),
    ('public', 'agent_configurations', 'org', 'secondary', null, null),
    ('public', 'campaign_phone_numbers', 'org', 'secondary', null, null),
    ('public', 'campaigns', 'org', 'secondary', null, null),
    ('public', 'cold_call_logs', 'org', 'secondary', null, null),
    ('public', 'contacts', 'org', 'secondary', null, null),
    ('public', 'call_lists', 'org', 'secondary', null, null),
    ('public', 'dnc_list', 'org', 'secondary', null, null),
    ('public', 'embeddings', 'org', 'secondary', null, null),
    ('public', 'knowledge_base_chunks', 'org', 'secondary', null, null),
    ('public', 'knowledge_base_documents', 'org', 'secondary', null, null),
    ('public', 'notification_history', 'org', 'secondary', null, null),
    ('public', 'notification_templates', 'org', 'secondary', null, null),
    ('public', 'phone_assistants', 'org', 'secondary', null, null),
    ('public', 'sentiment_analysis', 'org', 'secondary', null, null),
    ('public', 'telephony_audit_log', 'org', 'secondary', null, null),
    ('public', 'user_active_calls', 'org', 'secondary', null, null),
    ('public', 'user_phone_numbers', 'org', 'secondary', null, null),
    ('public', 'user_twilio_subaccounts', 'org', 'secondary', null, null),
    ('public', 'usage_events', 'org', 'secondary', null, null),
    ('public', 'usage_records', 'org', 'secondary', null, null),
    ('public', 'compliance_audit_logs', 'org', 'secondary', null, null),
    ('public', 'consent_records', 'org', 'secondary', null, null),
    ('public', 'credit_transactions', 'org', 'secondary', null, null),
    ('public', 'customer_twilio_keys', 'org', 'secondary', null, null),
    ('public', 'daily_lead_uploads', 'org', 'secondary', null, null),
    ('public', 'notification_rate_limits', 'org', 'secondary', null, null),
    ('public', 'onboarding_events', 'org', 'secondary', null, null),
    ('public', 'payment_events_log', 'org', 'secondary', null, null),
    ('public', 'payments', 'org', 'secondary', null, null),
    ('public', 'billing_cycles', 'org', 'secondary', null, null),
    ('public', 'profiles', 'excluded', null, 'uses tenant_id, a different model', null),
    ('public', 'user_profiles', 'excluded', null, 'user-specific, not org-scoped', null),
    ('public', 'user_credits', 'excluded', null, 'user-specific', null),
    ('public', 'user_subscriptions', 'excluded', null, 'user-specific', null),
    ('public', 'customers', 'excluded', null, 'user-specific', null),
    ('public', 'billing_plans', 'excluded', null, 'global reference data', null),
    ('public', 'pricing_tiers', 'excluded', null, 'global reference data', null),
    ('public', 'voice_options', 'excluded', null, 'global reference data', null),
    ('public', 'campaign_templates', 'excluded', null, 'global reference data', null)
on conflict (schema_name, table_name) do update
set
    scope = excluded.scope,
    priority = excluded.priority,
    reason = excluded.reason,
    org_from = excluded.org_from;

-- Here, before the check: who belongs to which organization, unless all belong to the default one, and which organization new users get.
-- For example, without the two lines with the stars:
/*
insert into public.organizations (id, name)
select id, name
from public.companies
on conflict (id) do nothing;

insert into tenancy.user_orgs (user_id, org_id)
select distinct on (user_id) user_id, company_id
from public.company_members
order by user_id, created_at
on conflict (user_id) do update set org_id = excluded.org_id;

select tenancy.enable_new_users('application');
*/

select tenancy.assert_registry();
