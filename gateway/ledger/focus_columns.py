"""The columns of our FOCUS 1.2 export, as data: type, whether null is allowed, feature level, allowed values.

Taken from the FinOps Open Cost and Usage Specification, version 1.2. All mandatory columns, and of the others those
that a seller of tokens has something to say in; columns that begin with `x_` are ours. Alphabetical, ours last.
"""

from typing import NamedTuple

from pricing.export import Column

VERSION = "1.2"


class FocusColumn(NamedTuple):
    name: str
    kind: str  # text | decimal | time | json | bool
    nullable: bool
    level: str  # Mandatory | Conditional | Recommended | Custom
    allowed: tuple[str, ...] = ()  # none: any


SERVICE_CATEGORIES = (
    *("AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools"),
    *("Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media"),
    *("Migration", "Mobile", "Networking", "Security", "Storage", "Web", "Other"),
)
# Of the categories that we use: subcategory -> its category.
SUBCATEGORIES = {
    **dict.fromkeys(
        (
            *("AI Platforms", "Bots", "Generative AI", "Machine Learning", "Natural Language Processing"),
            "Other (AI and Machine Learning)",
        ),
        "AI and Machine Learning",
    ),
    **dict.fromkeys(
        (
            *("Application Networking", "Content Delivery", "Network Connectivity", "Network Infrastructure"),
            *("Network Routing", "Network Security", "Other (Networking)"),
        ),
        "Networking",
    ),
    "Other (Other)": "Other",
}

FOCUS_COLUMNS = (
    FocusColumn("BilledCost", "decimal", False, "Mandatory"),
    FocusColumn("BillingAccountId", "text", False, "Mandatory"),
    FocusColumn("BillingAccountName", "text", True, "Mandatory"),
    FocusColumn("BillingAccountType", "text", False, "Conditional"),
    FocusColumn("BillingCurrency", "text", False, "Mandatory"),
    FocusColumn("BillingPeriodEnd", "time", False, "Mandatory"),
    FocusColumn("BillingPeriodStart", "time", False, "Mandatory"),
    FocusColumn("ChargeCategory", "text", False, "Mandatory", ("Usage", "Purchase", "Tax", "Credit", "Adjustment")),
    FocusColumn("ChargeClass", "text", True, "Mandatory", ("Correction",)),
    FocusColumn("ChargeDescription", "text", True, "Mandatory"),
    FocusColumn("ChargeFrequency", "text", False, "Recommended", ("One-Time", "Recurring", "Usage-Based")),
    FocusColumn("ChargePeriodEnd", "time", False, "Mandatory"),
    FocusColumn("ChargePeriodStart", "time", False, "Mandatory"),
    # Always null, and there because rules about other columns ask for it.
    FocusColumn("CommitmentDiscountStatus", "text", True, "Conditional", ("Used", "Unused")),
    FocusColumn("ConsumedQuantity", "decimal", True, "Conditional"),
    FocusColumn("ConsumedUnit", "text", True, "Conditional"),
    FocusColumn("ContractedCost", "decimal", False, "Mandatory"),
    FocusColumn("ContractedUnitPrice", "decimal", True, "Conditional"),
    FocusColumn("EffectiveCost", "decimal", False, "Mandatory"),
    FocusColumn("InvoiceId", "text", True, "Recommended"),
    FocusColumn("InvoiceIssuerName", "text", False, "Mandatory"),
    FocusColumn("ListCost", "decimal", False, "Mandatory"),
    FocusColumn("ListUnitPrice", "decimal", True, "Conditional"),
    FocusColumn("PricingCategory", "text", True, "Conditional", ("Standard", "Dynamic", "Committed", "Other")),
    FocusColumn("PricingQuantity", "decimal", True, "Mandatory"),
    FocusColumn("PricingUnit", "text", True, "Mandatory"),
    FocusColumn("ProviderName", "text", False, "Mandatory"),
    FocusColumn("PublisherName", "text", False, "Mandatory"),
    FocusColumn("RegionId", "text", True, "Conditional"),
    FocusColumn("RegionName", "text", True, "Conditional"),
    FocusColumn("ResourceId", "text", True, "Conditional"),
    FocusColumn("ResourceName", "text", True, "Conditional"),
    FocusColumn("ResourceType", "text", True, "Conditional"),
    FocusColumn("ServiceCategory", "text", False, "Mandatory", SERVICE_CATEGORIES),
    FocusColumn("ServiceName", "text", False, "Mandatory"),
    FocusColumn("ServiceSubcategory", "text", False, "Recommended", tuple(SUBCATEGORIES)),
    FocusColumn("SkuId", "text", True, "Conditional"),
    FocusColumn("SkuMeter", "text", True, "Conditional"),
    FocusColumn("SkuPriceDetails", "json", True, "Conditional"),
    FocusColumn("SkuPriceId", "text", True, "Conditional"),
    FocusColumn("SubAccountId", "text", True, "Conditional"),
    FocusColumn("SubAccountName", "text", True, "Conditional"),
    FocusColumn("SubAccountType", "text", True, "Conditional"),
    FocusColumn("Tags", "json", True, "Conditional"),
    FocusColumn("x_DestinationCountry", "text", True, "Custom"),
    FocusColumn("x_Exported", "bool", True, "Custom"),
    FocusColumn("x_Model", "text", True, "Custom"),
    FocusColumn("x_OriginCountry", "text", True, "Custom"),
)
COLUMNS = tuple(Column(column.name, column.kind) for column in FOCUS_COLUMNS)
NAMES = tuple(column.name for column in FOCUS_COLUMNS)
